/**
 * The gates of the source: closed in every store's database, because an agent listens to those that it
 * knows, and waited for until each instance that lives has nothing in flight.
 */
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { MoveTask, StoreLogin } from "../ports.ts";
import { overtaken } from "./commands.ts";
import type { Connections } from "./connections.ts";
import { isOvertaken, textOf } from "./sql-errors.ts";

type Busy = { readonly instance: string; readonly in_flight: number | null };

const pollMs = 2;

export async function closeGatesOf(
  task: MoveTask,
  login: StoreLogin,
  { connections, clock }: { readonly connections: Connections; readonly clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  const keys = JSON.stringify(task.keys.map(({ key, epoch }) => ({ key, epoch })));
  await connections.use(login, async (session) => {
    try {
      await session.query("select cellfleet.close_gates($1, $2, $3)", [
        keys,
        task.op,
        task.attempt,
      ]);
    } catch (error) {
      throw isOvertaken(error) ? overtaken(task, login, textOf(error)) : error;
    }
    for (;;) {
      const { rows } = await session.query<Busy>("select * from cellfleet.gates_open($1, $2)", [
        task.op,
        task.attempt,
      ]);
      if (rows.length === 0) return;
      if (signal.aborted) throw notEmpty(task, login, rows);
      await clock.sleep(pollMs, signal);
    }
  });
}

export async function openGatesOf(
  task: MoveTask,
  login: StoreLogin,
  connections: Connections,
): Promise<void> {
  await connections.use(login, async (session) => {
    try {
      await session.query("select cellfleet.open_gates($1, $2)", [task.op, task.attempt]);
    } catch (error) {
      throw isOvertaken(error) ? overtaken(task, login, textOf(error)) : error;
    }
  });
}

function notEmpty(task: MoveTask, { cell }: StoreLogin, busy: readonly Busy[]): CellError {
  const told = busy.map(({ instance, in_flight: inFlight }) =>
    inFlight === null ? `${instance} does not answer` : `${instance} has ${inFlight} in flight`,
  );
  return new CellError(
    "GATE_CLOSED",
    `The requests of the keys in ${cell} were not done in time: ${told.join("; ")}. Nothing was fenced.`,
    {
      details: {
        instances: busy.map(({ instance, in_flight: inFlight }) => ({ instance, inFlight })),
      },
      nextSteps: [`cellctl move show ${task.op}`],
    },
  );
}
