/**
 * After the last key changed hands: routers follow, the new owners are tried as a client would, what was
 * lost is counted and named, and the keys go on into whole cells. None of it is waited for without a limit
 * but the moves, which are ordinary ones.
 */
import { databaseNowMs } from "../../../store/database.ts";
import { readAdopterLooks } from "../../../store/failover/adopters.ts";
import { countProgress, noteRun } from "../../../store/failover/evidence.ts";
import { annexesOf } from "../../../store/failover/revoke.ts";
import { readPendingAt } from "../../../store/failover/wave.ts";
import { readFleetRevision } from "../../../store/fleet-revision.ts";
import { emptyCell } from "../../emptying/emptying.ts";
import { annexesIn, baselineOf, lookForPoison, poisoned } from "../adopters.ts";
import type { Step, StepContext } from "../world.ts";

const lookEveryMs = 25;
const watchEveryMs = 100;
const emptyEveryMs = 500;
/** A report that cannot be made now is made later (`cellctl failover status`); nobody waits for it. */
const reportTries = 3;

export const routing: Step = async (context) => {
  const { world, run, wait, signal } = context;
  const untilMs = world.clock.monotonicMs() + world.patience.routeMs;
  let pending = await readPendingAt(world.database.read, run.id);
  while (pending.size > 0 && world.clock.monotonicMs() < untilMs && !signal.aborted) {
    await wait(lookEveryMs);
    pending = await readPendingAt(world.database.read, run.id);
  }
  const revision = await readFleetRevision(world.database.read);
  const leftMs = Math.max(lookEveryMs, untilMs - world.clock.monotonicMs());
  const behind = await world.routers.behind(revision, leftMs, signal);
  const late = [
    ...[...pending].map(([cell, keys]) => `${keys} keys are not active in ${cell} yet`),
    ...(behind.length === 0
      ? []
      : [`${behind.join(", ")} did not say that it serves revision ${revision}`]),
  ];
  return {
    event: "routed",
    headline:
      late.length === 0 ? "live routers serve the new owners" : `going on: ${late.join("; ")}`,
    patch: { progress: await countProgress(world.database.read, run) },
    events: late.map((text) => ({
      kind: "failover.late",
      object: run.cell,
      text: `${run.id}: ${text}.`,
    })),
  };
};

export const verifying: Step = async (context) => {
  const { world, run, memory, wait, signal } = context;
  const adopters = annexesIn(run.evidence.annexes, "severed");
  const looks = await readAdopterLooks(world.database.read, adopters);
  const baseline = await baselineOf(context, looks);
  const canaries = run.evidence.canaries ?? (await tryAll(context, adopters));
  const report = run.evidence.canaries === undefined ? await makeReport(context) : undefined;
  for (;;) {
    const found = await lookForPoison(context, baseline);
    if (found !== undefined) return poisoned(context, found);
    const watchedMs = world.clock.monotonicMs() - memory.enteredMs;
    if (watchedMs >= world.patience.watchMs || signal.aborted) break;
    await wait(watchEveryMs);
  }
  const progress = await countProgress(world.database.read, run);
  const text = report ?? `${progress.adopted} keys have a new owner`;
  return {
    event: "verified",
    headline: `${text}; moving them into whole cells, where they have standbys again`,
    patch: { progress, evidence: { canaries } },
    events: [{ kind: "failover.verified", object: run.cell, text: `${run.id}: ${text}.` }],
  };
};

async function tryAll(
  context: StepContext,
  adopters: readonly string[],
): Promise<Record<string, string>> {
  const { world, run, signal } = context;
  const tried = await Promise.all(
    adopters.map(async (annex) => {
      const said = await world
        .canary(annex, run, signal)
        .catch((error) => (error instanceof Error ? error.message : String(error)));
      return [annex, said] as const;
    }),
  );
  const canaries = Object.fromEntries(tried);
  await noteRun(world.database.read, run.id, { evidence: { canaries } });
  return canaries;
}

async function makeReport({ world, run, note, wait }: StepContext): Promise<string> {
  await note(`counting what ${run.cell} had acknowledged and no standby has`);
  for (let tries = 1; ; tries += 1) {
    try {
      const { totals, method } = await world.report(run.id);
      return `${totals.adopted} of ${totals.keys} keys adopted, ${totals.lost} acknowledged writes lost, ${totals.unknown} unknown (${method})`;
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      if (tries >= reportTries) return `what was lost could not be counted: ${said}`;
      await wait(watchEveryMs * tries);
    }
  }
}

/** Low priority, a few at a time: the keys are served meanwhile, without a standby. */
export const reprotecting: Step = async (context) => {
  const { world, run, term, wait, note } = context;
  const annexes = annexesIn(run.evidence.annexes, "severed");
  const rows = await annexesOf(world.database.read, run.cell);
  let left = 0;
  const obstacles: string[] = [];
  for (const { annex, host } of rows.filter((row) => annexes.includes(row.annex))) {
    const turn = await emptyCell(world, {
      ...{ from: annex, op: run.id, term, prefer: [host], exclude: [run.cell] },
      reason: `${run.id}: into a whole cell, where it has a standby again`,
    });
    left += turn.left;
    if (turn.obstacle !== "") obstacles.push(`${annex}: ${turn.obstacle}`);
  }
  const progress = await countProgress(world.database.read, run);
  await noteRun(world.database.read, run.id, { progress });
  if (left > 0) {
    const why = obstacles.length === 0 ? "" : ` (${obstacles.join("; ")})`;
    await note(
      `${left} keys are served without a standby, until moves have brought them into whole cells${why}`,
    );
    await wait(emptyEveryMs);
    return undefined;
  }
  const nowMs = await databaseNowMs(world.database.read);
  const text = `${run.cell} is failed over; ${progress.reprotected} keys are in whole cells${progress.unavailable === 0 ? "" : `, ${progress.unavailable} unavailable`}${progress.quarantined === 0 ? "" : `, ${progress.quarantined} quarantined`}`;
  return {
    event: "reprotected",
    headline: `${text}, after ${Math.round((nowMs - run.createdAtMs) / 1000)} s`,
    patch: { progress },
    events: [{ kind: "failover.done", object: run.cell, text: `${run.id}: ${text}.` }],
  };
};
