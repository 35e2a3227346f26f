/**
 * Keys change hands: canaries first, then wave by wave, while the adopters stay as well as they were.
 * What nobody has a usable copy of is unavailable, by name. Point of no return, per key.
 *
 * What must always be true: no key is given to an annex before its stream was cut and its database has
 * recorded that it was (else it could activate beside the old owner, or not at all).
 */
import { errorFields } from "../../../../runtime/log.ts";
import { type Home, homeOf } from "../../../core/failover/homes.ts";
import type { Poisoning } from "../../../core/failover/poison.ts";
import { type AdoptableKey, planWaves } from "../../../core/failover/waves.ts";
import { Abandoned } from "../../../store/abandoned.ts";
import {
  adoptWave,
  type RemainingKey,
  readKeyspaceViews,
  readRemaining,
} from "../../../store/failover/adopt.ts";
import { requireTurn } from "../../../store/failover/enter.ts";
import { countProgress, noteRun } from "../../../store/failover/evidence.ts";
import {
  endMovesOfAdopted,
  readMovedIn,
  returnSoaking,
  settleMovesAfterCommit,
  soakingInto,
} from "../../../store/failover/motion.ts";
import { annexesOf, markAdopted, readOrders } from "../../../store/failover/revoke.ts";
import { markUnavailable, readPendingAt, wavesDone } from "../../../store/failover/wave.ts";
import { rowsPerRevisionMax } from "../../../store/ownership-feed.ts";
import {
  annexesIn,
  atAnnexes,
  awaitServing,
  baselineOf,
  type Facts,
  keepFacts,
  lookForPoison,
  poisoned,
  without,
} from "../adopters.ts";
import { activateAhead } from "../ahead.ts";
import { giveAtOnce, openAtOnce } from "../tell-annexes.ts";
import type { Step, StepContext, StepResult } from "../world.ts";

const lookEveryMs = 25;
const countEveryMs = 500;

export const adopting: Step = async (context) => {
  const { world, run, term } = context;
  try {
    const settling = world.database.transaction(async (tx) => {
      await settleMovesAfterCommit(tx, run);
      await requireTurn(tx, term, run);
    });
    // At the same time: tenants wait, and annexes may be prepared by whoever was the executor.
    const [facts] = await Promise.all([prepare(context), settling]);
    const looks = await awaitServing(context, annexesIn(facts, "severed"));
    const [baseline] = await Promise.all([
      baselineOf(context, looks),
      returnToSources(context, facts),
    ]);
    const found = await adoptAll(context, facts, baseline);
    if (found !== undefined) return poisoned(context, found);
    return await adopted(context, facts);
  } catch (error) {
    // Another executor, or a recovery: look at the failover again.
    if (error instanceof Abandoned) return undefined;
    throw error;
  }
};

/** Each adopter has recorded that its stream is cut, and its sequences stand behind the highest id. */
async function prepare(context: StepContext): Promise<Facts> {
  const { run } = context;
  let facts: Facts = run.evidence.annexes;
  // At the same time: tenants wait, and neither needs the other.
  const [late, activated] = await Promise.all([
    awaitOpen(context, annexesIn(facts, "severed")),
    atAnnexes(context, facts, "severed", async (row) => {
      await activateAhead(context, row);
      return facts[row.annex] ?? { status: "severed", reason: "" };
    }),
  ]);
  facts = activated;
  for (const annex of late) {
    facts = without(facts, annex, "its agent has not recorded that the stream is cut");
  }
  if (annexesIn(facts, "severed").length < annexesIn(run.evidence.annexes, "severed").length) {
    await keepFacts(context, facts);
  }
  return facts;
}

/** Databases are told here and now; of those that cannot be the agents are waited for. Those that did not say so in time. */
async function awaitOpen(
  context: StepContext,
  annexes: readonly string[],
): Promise<readonly string[]> {
  const { world, run, wait, signal } = context;
  const untilMs = world.clock.monotonicMs() + world.patience.annexMs;
  const told = await openAtOnce(context, annexes);
  for (;;) {
    const orders = await readOrders(world.database.read, run, 0);
    const open = new Set([...told, ...orders.filter((one) => one.open).map(({ annex }) => annex)]);
    const late = annexes.filter((annex) => !open.has(annex));
    if (late.length === 0 || world.clock.monotonicMs() >= untilMs || signal.aborted) return late;
    await wait(lookEveryMs);
  }
}

type Baseline = Parameters<typeof lookForPoison>[1];

/** Undefined: all that can be adopted is, and the others are named. */
async function adoptAll(
  context: StepContext,
  facts: Facts,
  baseline: Baseline,
): Promise<Poisoning | undefined> {
  const { database, patience } = context.world;
  const { run } = context;
  for (;;) {
    const keys = await withHomes(context, facts, await readRemaining(database.read, run));
    let number = await wavesDone(database.read, run.id);
    let isWatched = false;
    for (const wave of planWaves(keys, number, patience.waves)) {
      const found = await oneWave(context, baseline, { number, keys: wave, isWatched });
      if (found !== undefined) return found;
      isWatched = number === 0;
      number += 1;
    }
    await nameUnavailable(context, keys);
    // One that changed while it was taken (its epoch, its state) is looked at again.
    if (keys.every(({ annex }) => annex === null)) return undefined;
  }
}

/** Nothing is given to an adopter that is worse off than before; after the canaries it is watched for a moment. */
async function oneWave(
  context: StepContext,
  baseline: Baseline,
  wave: Parameters<typeof adoptWave>[2] & {
    /** The canaries before it were, until now. */
    readonly isWatched: boolean;
  },
): Promise<Poisoning | undefined> {
  const { world, run, term, signal } = context;
  if (signal.aborted) throw new Abandoned("raced");
  const isFirst = wave.number === 0 || wave.isWatched;
  const ill = isFirst ? undefined : await lookForPoison(context, baseline);
  if (ill !== undefined) return ill;
  const { given } = await adoptWave(world.database, { term, run }, wave);
  await Promise.all([giveAtOnce(context, given), noteProgress(context)]);
  return wave.number === 0 ? watchCanaries(context, baseline) : undefined;
}

async function withHomes(
  { world, run }: StepContext,
  facts: Facts,
  keys: readonly RemainingKey[],
): Promise<AdoptableKey[]> {
  const { read } = world.database;
  const about = {
    ...{ cell: run.cell, facts, keyspaces: await readKeyspaceViews(read) },
    ranges: (await annexesOf(read, run.cell))
      .filter(({ annex }) => annex in facts)
      .map(({ annex, bucketLo: lo, bucketHi: hi }) => ({ annex, lo, hi })),
    movedIn: await readMovedIn(read, run.cell),
    // What is older than this was not applied after it either.
    severedAtMs: run.fencedAtMs ?? 0,
  };
  return keys.map((one) => {
    const home: Home = homeOf(one.key, about);
    return { ...one, ...home };
  });
}

/**
 * Keys that a move had brought just before, and that no standby certainly has: while the move soaks, its
 * source has followed (corrections A13). Where that cannot be cut off or reached they stay unavailable.
 */
async function returnToSources(context: StepContext, facts: Facts): Promise<void> {
  const { world, run, term } = context;
  const { read } = world.database;
  const moves = await soakingInto(read, run.cell);
  if (moves.length === 0) return;
  const homes = await withHomes(context, facts, await readRemaining(read, run));
  const homeless = new Set(homes.filter(({ annex }) => annex === null).map(({ key }) => key));
  for (const move of moves) {
    if (!move.keys.some(({ key }) => homeless.has(key))) continue;
    try {
      const remoteLsn = await world.cutWayBack(move);
      await world.database.transaction(async (tx) => {
        await returnSoaking(tx, move.id, run, remoteLsn);
        await requireTurn(tx, term, run);
      });
    } catch (error) {
      if (error instanceof Abandoned) throw error;
      const fields = { failover: run.id, step: run.step, error: "", ...errorFields(error) };
      world.log.event("failover.failing", fields, "warn");
    }
  }
}

/** Until they are served, and a moment more: what they bring along shows in the first requests. */
async function watchCanaries(
  context: StepContext,
  baseline: Baseline,
): Promise<Poisoning | undefined> {
  const { world, run, wait, signal } = context;
  const { canaryMs, canaryMostMs } = world.patience;
  const sinceMs = world.clock.monotonicMs();
  let servedMs: number | undefined;
  await context.note(
    `the first keys of ${run.cell} are adopted: is their new cell as well as before?`,
  );
  while (!signal.aborted) {
    const found = await lookForPoison(context, baseline);
    if (found !== undefined) return found;
    const nowMs = world.clock.monotonicMs();
    const pending = (await readPendingAt(world.database.read, run.id)).size;
    if (pending === 0) servedMs ??= nowMs;
    if (servedMs !== undefined && nowMs - servedMs >= canaryMs) return undefined;
    if (nowMs - sinceMs >= canaryMostMs) return undefined;
    await wait(lookEveryMs);
  }
  return undefined;
}

/** Counting takes as long as a small wave: now and then is enough for people. */
async function noteProgress({ world, run, memory }: StepContext): Promise<void> {
  const nowMs = world.clock.monotonicMs();
  if (nowMs - memory.countedMs < countEveryMs) return;
  memory.countedMs = nowMs;
  const progress = await countProgress(world.database.read, run);
  const headline = `${progress.adopted} of ${progress.keys} keys of ${run.cell} have a new owner`;
  await noteRun(world.database.read, run.id, { progress, headline });
}

async function nameUnavailable(
  { world, run, term }: StepContext,
  keys: readonly AdoptableKey[],
): Promise<void> {
  const lost = keys.filter(({ annex }) => annex === null);
  for (let at = 0; at < lost.length; at += rowsPerRevisionMax) {
    const part = lost.slice(at, at + rowsPerRevisionMax);
    await markUnavailable(world.database, { term, run }, part);
  }
}

async function adopted({ world, run }: StepContext, facts: Facts): Promise<StepResult> {
  const progress = await countProgress(world.database.read, run);
  const { keys, adopted: given, unavailable } = progress;
  const text = `${given} of ${keys} keys of ${run.cell} have a new owner${unavailable === 0 ? "" : `; ${unavailable} are unavailable: nobody has a copy of them that may be used`}`;
  return {
    event: "adopted",
    headline: text,
    patch: { progress, evidence: { annexes: facts } },
    within: async (tx) => {
      await endMovesOfAdopted(tx, run);
      await markAdopted(tx, annexesIn(facts, "severed"), run.id);
      return {};
    },
    events: [{ kind: "failover.adopted", object: run.cell, text: `${run.id}: ${text}.` }],
  };
}
