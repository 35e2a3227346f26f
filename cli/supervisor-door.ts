/**
 * Where the supervisor of a data folder listens, and whether it does: a note that it left behind
 * when it crashed must not pass for a fleet that runs.
 */
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { z } from "zod";

/** Written by the supervisor when it takes the folder. */
const noteFile = "supervisor.json";
const noteSchema = z.object({ door: z.url({ protocol: /^http$/ }) });

/** Throws when the folder has no note of a supervisor. */
export async function readDoor(folder: string): Promise<URL> {
  const note = noteSchema.parse(JSON.parse(await readFile(join(folder, noteFile), "utf8")));
  return new URL(note.door);
}

export async function supervisorListens(folder: string): Promise<boolean> {
  const door = await readDoor(folder).catch(() => undefined);
  if (door === undefined) return false;
  return new Promise((resolve) => {
    const socket = connect({ host: door.hostname, port: Number(door.port) });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
