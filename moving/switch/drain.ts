/**
 * Has everything that was written before the fence arrived? The marker says so: it was committed behind
 * all of it, and a subscription applies in the order of commits.
 *
 * Always true: the look that finds the marker is the first of its transaction, so the snapshot that has
 * the marker has everything, and is the one that is kept for the comparison.
 */
import { escapeLiteral } from "pg";
import { CellError } from "../../contract/errors.ts";
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { FrozenPair, FrozenSnapshot } from "../frozen-snapshots.ts";
import type { MoveTask, StoreLogin } from "../ports.ts";
import type { StoreSession } from "../store-session.ts";
import { markerOf, placeOf } from "./commands.ts";
import type { Connections } from "./connections.ts";

const pollMs = 1;
const beginFrozen = `begin isolation level repeatable read read only;
  set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0;`;

type How = { readonly connections: Connections; readonly clock: Clock };

/** Snapshots of both sides of every store, once every marker is there; after a failure none is left. */
export async function drainStores(
  task: MoveTask,
  how: How,
  signal: AbortSignal,
): Promise<readonly FrozenPair[]> {
  const sides = await Promise.allSettled(
    task.stores.flatMap(({ source, target }) => [
      freezeSource(source, how.connections),
      awaitMarker(task, target, how, signal),
    ]),
  );
  const frozen = sides.flatMap((side) => (side.status === "fulfilled" ? [side.value] : []));
  const failed = sides.find((side) => side.status === "rejected");
  // Nobody waits for it any more: the next try has, or will have, snapshots of its own.
  const late = signal.aborted ? notThere(task, must(task.stores[0], "a store").target) : undefined;
  if (failed !== undefined || late !== undefined) {
    await Promise.all(frozen.map((snapshot) => snapshot.close()));
    throw failed?.reason ?? late;
  }
  return task.stores.map(({ name }, nth) => ({
    store: name,
    source: must(frozen[2 * nth], "the source's snapshot"),
    target: must(frozen[2 * nth + 1], "the target's snapshot"),
  }));
}

/** Of the target, when the marker is there. */
async function awaitMarker(
  task: MoveTask,
  login: StoreLogin,
  { connections, clock }: How,
  signal: AbortSignal,
): Promise<FrozenSnapshot> {
  const { op, name } = markerOf(task);
  const look = `${beginFrozen} select 1 from cellfleet.move_marker
    where op = ${escapeLiteral(op)} and name = ${escapeLiteral(name)}`;
  return connections.spend(login, async (session) => {
    for (;;) {
      if (await finds(session, look)) return frozen(session);
      if (signal.aborted) throw notThere(task, login);
      await session.query("rollback");
      await clock.sleep(pollMs, signal);
    }
  });
}

/** Of the source, where nothing of the keys is written any more. */
const freezeSource = (login: StoreLogin, connections: Connections): Promise<FrozenSnapshot> =>
  connections.spend(login, async (session) => {
    await session.query(`${beginFrozen} select 1`);
    return frozen(session);
  });

/** Comparing takes as long as there are rows. */
function frozen(session: StoreSession): FrozenSnapshot {
  session.takeTime();
  return session;
}

/** In one message, so in one round trip; the result of its last statement counts. */
async function finds(session: StoreSession, text: string): Promise<boolean> {
  const results: unknown = await session.query(text);
  const last: unknown = Array.isArray(results) ? results.at(-1) : results;
  return typeof last === "object" && last !== null && "rowCount" in last && last.rowCount === 1;
}

const notThere = (task: MoveTask, login: StoreLogin): CellError =>
  new CellError(
    "PAUSE_BUDGET_EXCEEDED",
    `What was written last has not arrived in ${placeOf(login)} in time.`,
    { nextSteps: [`cellctl move show ${task.op}`] },
  );
