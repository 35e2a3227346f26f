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
  const startedMs = clock.monotonicMs();
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
      if (signal.aborted) throw notEmpty(task, login, rows, clock.monotonicMs() - startedMs);
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

function notEmpty(
  task: MoveTask,
  { cell }: StoreLogin,
  busy: readonly Busy[],
  waitedMs: number,
): CellError {
  const told = busy.map(({ instance, in_flight: inFlight }) =>
    inFlight === null ? `${instance} has not answered` : `${instance} has ${inFlight}`,
  );
  const inFlight = busy.reduce((sum, { in_flight: count }) => sum + (count ?? 0), 0);
  return new CellError(
    "PAUSE_BUDGET_EXCEEDED",
    `The agents of ${cell} had not closed their gates within ${Math.round(waitedMs)} ms: ${told.join(", ")}; ${inFlight} requests in flight. Nothing was fenced.`,
    {
      details: {
        instances: busy.map(({ instance, in_flight: count }) => ({ instance, inFlight: count })),
      },
      nextSteps: [`cellctl move show ${task.op}`, "cellctl move start … --pause-budget 2s"],
    },
  );
}
