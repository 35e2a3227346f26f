/**
 * Fence and way back in one store. A fence that does not come in time names who stands in its way.
 */
import { CellError } from "../../contract/errors.ts";
import type { MoveTask, StoreLogin } from "../ports.ts";
import type { StoreSession } from "../store-session.ts";
import { changesOf, markerOf, overtaken, placeOf } from "./commands.ts";
import type { Connections } from "./connections.ts";
import { isBlocked, isOvertaken, textOf } from "./sql-errors.ts";

/** What takes a fence back waits for nobody who writes: keys become active without a lock. */
const unfenceLockMs = 2000;

type InTheWay = {
  readonly pid: number;
  readonly user_name: string | null;
  readonly application: string | null;
  readonly state: string | null;
  readonly age_ms: number | null;
  readonly key: string;
};

export async function fenceStore(
  task: MoveTask,
  login: StoreLogin,
  how: {
    readonly connections: Connections;
    readonly lockTimeoutMs: number;
    readonly nonce: string;
  },
): Promise<void> {
  const { op, name } = markerOf(task);
  await how.connections.use(login, async (session) => {
    try {
      await session.query("select cellfleet.fence_for_move($1, $2, $3, $4, $5, $6)", [
        changesOf(task, "fenced"),
        how.lockTimeoutMs,
        ...[name, op, task.attempt, how.nonce],
      ]);
    } catch (error) {
      if (isOvertaken(error)) throw overtaken(task, login, textOf(error));
      if (!isBlocked(error)) throw error;
      throw blocked(task, login, await inTheWay(task, session), error);
    }
  });
}

export async function unfenceStore(
  task: MoveTask,
  login: StoreLogin,
  connections: Connections,
): Promise<void> {
  await connections.use(login, async (session) => {
    try {
      await session.query("select cellfleet.unfence_for_move($1, $2)", [
        changesOf(task, "active"),
        unfenceLockMs,
      ]);
    } catch (error) {
      throw isOvertaken(error) ? overtaken(task, login, textOf(error)) : error;
    }
  });
}

async function inTheWay(task: MoveTask, session: StoreSession): Promise<readonly InTheWay[]> {
  const { rows } = await session.query<InTheWay>(
    `select pid, user_name, application, state, age_ms::float8 as age_ms, key
       from cellfleet.sessions_in_the_way($1)`,
    [task.keys.map(({ key }) => key)],
  );
  return rows;
}

function blocked(
  task: MoveTask,
  login: StoreLogin,
  sessions: readonly InTheWay[],
  cause: unknown,
): CellError {
  const told = sessions.map(
    ({ pid, user_name: user, application, state, age_ms: ageMs }) =>
      `process ${pid} of ${user ?? "?"} (${[application, state, ageMs === null ? "" : `for ${Math.round(ageMs)} ms`].filter((text) => text !== "" && text !== null).join(", ")})`,
  );
  const who = told.length === 0 ? "none of them is left now" : told.join("; ");
  return new CellError(
    "FENCE_BLOCKED",
    `Transactions that hold the keys of ${task.op} in ${placeOf(login)} did not end: ${who}. Nothing was fenced there.`,
    {
      cause,
      details: { cell: login.cell, store: login.store, sessions },
      nextSteps: [
        "let these transactions end, or end them: select pg_terminate_backend(PID)",
        `cellctl move show ${task.op}`,
      ],
    },
  );
}
