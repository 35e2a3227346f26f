/** The supervisor of a local fleet, asked about its processes: its own door, on this machine only. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { createJsonClient } from "../runtime/http-client.ts";
import { apiPath } from "./api.ts";
import { CliError } from "./failures.ts";
import { dataFolder } from "./fleet.ts";
import type { Session } from "./session.ts";
import { unitSchema } from "./shapes.ts";
import { readDoor } from "./supervisor-door.ts";

const tokenFile = join("secrets", "provider-token");

/** The supervisor calls a process by name; a list of the CLI carries ids. */
const processSchema = z
  .object({ ...unitSchema.omit({ id: true }).shape, name: z.string() })
  .transform(({ name, ...rest }): z.infer<typeof unitSchema> => ({ id: name, ...rest }));
const listSchema = z.object({ items: z.array(processSchema) });

/** PostgreSQL recovers, an application migrates: starting a process may take a while. */
const actionTimeoutMs = 120_000;
const listTimeoutMs = 10_000;

export type LocalProcess = z.infer<typeof unitSchema>;
export type ProcessAction = "start" | "stop" | "kill";

export async function listProcesses(session: Session): Promise<readonly LocalProcess[]> {
  const { items } = await ask(session, "GET", "/v1/processes", listSchema, listTimeoutMs);
  return items;
}

export const actOnProcess = (
  session: Session,
  name: string,
  action: ProcessAction,
): Promise<LocalProcess> =>
  ask(
    session,
    "POST",
    `${apiPath`/v1/processes/${name}`}/${action}`,
    processSchema,
    actionTimeoutMs,
  );

async function ask<T>(
  session: Session,
  method: "GET" | "POST",
  path: string,
  schema: z.ZodType<T>,
  timeoutMs: number,
): Promise<T> {
  const folder = dataFolder(session.io, session.fleetFlags);
  const { door, token } = await findDoor(folder);
  const client = createJsonClient({ origin: door, token, unreachable: "PROVIDER_FAILED" });
  const signal = session.interrupted();
  try {
    const body = method === "POST" ? {} : undefined;
    return await client.call({ method, path, schema, timeoutMs, signal, body });
  } catch (error) {
    // Without details of the peer it is silence: the supervisor itself says PROVIDER_FAILED with next steps.
    if (
      error instanceof CellError &&
      error.code === "PROVIDER_FAILED" &&
      error.cause !== undefined
    ) {
      throw notThere(folder, error);
    }
    throw error;
  } finally {
    await client.close();
  }
}

async function findDoor(
  folder: string,
): Promise<{ readonly door: string; readonly token: string }> {
  try {
    const { origin: door } = await readDoor(folder);
    const token = (await readFile(join(folder, tokenFile), "utf8")).trim();
    return { door, token };
  } catch (cause) {
    throw notThere(folder, cause);
  }
}

const notThere = (folder: string, cause: unknown): CliError =>
  new CliError("SUPERVISOR_UNREACHABLE", `no fleet runs in ${folder}`, {
    cause,
    nextSteps: [
      `cellctl dev --data ${folder}   (starts it)`,
      "cellctl dev ps --data FOLDER   (another one)",
    ],
  });
