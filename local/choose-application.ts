/**
 * Which application the cells of a data folder run: the one that `--app` names, else the one that the
 * folder was made with, else the sample. A folder never changes its application: its cells hold the
 * tables of the one that they were made for.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readAppFile } from "../adoption/app-file.ts";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { LocalApplication } from "./application.ts";
import { type FleetWishes, sampleWishes } from "./bring-up.ts";
import { environmentOfCommands } from "./child-environment.ts";
import { type DataFolder, writeJson } from "./data-folder.ts";
import type { DevFlags } from "./dev-options.ts";
import { fileApplication, wishesOf } from "./file-application.ts";
import { sampleApplication } from "./sample-application.ts";

export type Chosen = { readonly application: LocalApplication; readonly wishes: FleetWishes };

const noteSchema = z.object({ name: z.string(), file: z.string().optional() });

export async function chooseApplication(
  options: {
    readonly flags: DevFlags;
    readonly env: Readonly<Record<string, string | undefined>>;
    readonly clock: Clock;
  },
  folder: DataFolder,
): Promise<Chosen> {
  const { flags, env, clock } = options;
  const note = await readNote(folder);
  const path = flags.app ?? note?.file;
  const source = path === undefined ? undefined : await readAppFile(path);
  const commands = { env: environmentOfCommands(env), logs: folder.logs, clock };
  const chosen =
    source === undefined
      ? { application: await sampleApplication(), wishes: sampleWishes(flags.demo) }
      : {
          application: await fileApplication({ ...commands, source }),
          wishes: wishesOf(source, flags.demo),
        };
  const { name } = chosen.application;
  // A file may call its application what the sample is called, and is another one all the same.
  const same = note?.name === name && (note.file === undefined) === (source === undefined);
  if (note !== undefined && !same) throw otherApplication(folder, note.name, name);
  await writeJson(noteFile(folder), {
    name,
    ...(source === undefined ? {} : { file: source.file }),
  });
  return chosen;
}

function otherApplication(folder: DataFolder, known: string, asked: string): CellError {
  return new CellError(
    "STATE_CONFLICT",
    `The cells in ${folder.root} run the application ${known}, not ${asked}. Nothing was started.`,
    { nextSteps: ["cellctl dev --app FILE --data OTHER_FOLDER"] },
  );
}

const noteFile = (folder: DataFolder): string => join(folder.root, "application.json");

/** A folder with cells and no note was made by a release that knew the sample alone. */
async function readNote(folder: DataFolder): Promise<z.infer<typeof noteSchema> | undefined> {
  const text = await readFile(noteFile(folder), "utf8").catch(() => undefined);
  if (text !== undefined) return noteSchema.parse(JSON.parse(text));
  const cells = await readdir(join(folder.root, "cells")).catch((): string[] => []);
  return cells.length === 0 ? undefined : { name: "sample" };
}
