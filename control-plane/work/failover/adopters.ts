/**
 * Annexes as a failover prepares and watches them: processes of the application are started, sequences are
 * put behind the highest id, and what looks worse than before the first key came is a sign.
 */
import { errorFields } from "../../../runtime/log.ts";
import { type AdopterLook, type AnnexFact, leaveOut } from "../../core/failover/phases.ts";
import { blame, type Poisoning, poisonText, signsOf } from "../../core/failover/poison.ts";
import type { AnnexMarks } from "../../core/failover/suspects.ts";
import { Abandoned } from "../../store/abandoned.ts";
import { databaseNowMs } from "../../store/database.ts";
import { readAdopterLooks, readProviders } from "../../store/failover/adopters.ts";
import { requireTurn } from "../../store/failover/enter.ts";
import { noteRun } from "../../store/failover/evidence.ts";
import { type AnnexRow, annexesOf } from "../../store/failover/revoke.ts";
import { quarantineKeys, readAdopted } from "../../store/failover/wave.ts";
import { readKeyMarks } from "../../store/failover/witnesses.ts";
import type { FailoverPatience, StepContext, StepResult } from "./world.ts";

export type Facts = Readonly<Record<string, AnnexFact>>;

export const annexesIn = (facts: Facts, status: AnnexFact["status"]): string[] =>
  Object.entries(facts)
    .filter(([, fact]) => fact.status === status)
    .map(([annex]) => annex)
    .sort();

/** Nobody waits for it here: starting takes seconds, and the old owner's lease as long. */
export async function serveAll(context: StepContext, annexes: readonly string[]): Promise<void> {
  const { world, memory } = context;
  const fresh = annexes.filter((annex) => !memory.serving.has(annex));
  if (fresh.length === 0) return;
  const providers = await readProviders(world.database.read, fresh);
  for (const annex of fresh) {
    const state: { outcome: string | undefined } = { outcome: undefined };
    memory.serving.set(annex, state);
    if ((providers.get(annex) ?? "none") === "none") state.outcome = "";
    else void serve(context, annex, state);
  }
}

async function serve(
  { world, run, signal }: StepContext,
  annex: string,
  state: { outcome: string | undefined },
): Promise<void> {
  try {
    await world.provider.act(annex, "serve", { op: run.id }, signal);
    state.outcome = "";
  } catch (error) {
    state.outcome = error instanceof Error ? error.message : String(error);
    const fields = { failover: run.id, step: `serve ${annex}`, error: "", ...errorFields(error) };
    world.log.event("failover.failing", fields, "warn");
  }
}

/**
 * Until the application answers behind every annex's agent, or for as long as patience says. Whoever is
 * not there then gets its keys all the same: nobody else has their rows, and it may come up any moment.
 * What they all looked like then.
 */
export async function awaitServing(
  context: StepContext,
  annexes: readonly string[],
): Promise<readonly AdopterLook[]> {
  const { world, memory, wait, signal } = context;
  await serveAll(context, annexes);
  const untilMs = world.clock.monotonicMs() + world.patience.serveMs;
  for (;;) {
    const looks = await readAdopterLooks(world.database.read, annexes);
    const behind = looks.filter(
      (look) =>
        memory.serving.get(look.annex)?.outcome === undefined ||
        (!look.appReachable && look.instance !== ""),
    );
    if (behind.length === 0 || world.clock.monotonicMs() >= untilMs || signal.aborted) {
      return looks;
    }
    for (const { annex } of behind) {
      const outcome = memory.serving.get(annex)?.outcome;
      if (outcome !== undefined && outcome !== "") memory.serving.delete(annex);
    }
    await context.note(
      `waiting for the application in ${behind.map(({ annex }) => annex).join(", ")}`,
    );
    await serveAll(context, annexes);
    await wait(50);
  }
}

/**
 * The same work at several annexes at once, tried again while it fails and patience lasts. Those that did
 * not come through are left out, with the reason, and stay so.
 */
export async function atAnnexes(
  context: StepContext,
  facts: Facts,
  from: AnnexFact["status"],
  work: (row: AnnexRow) => Promise<AnnexFact>,
): Promise<Facts> {
  const { world, run, signal, wait } = context;
  const rows = (await annexesOf(world.database.read, run.cell)).filter(
    ({ annex }) => facts[annex]?.status === from,
  );
  const sinceMs = world.clock.monotonicMs();
  const made = await Promise.all(
    rows.map(async (row): Promise<readonly [string, AnnexFact]> => {
      const patienceMs = patienceFor(row, world.patience);
      const untilMs = sinceMs + patienceMs;
      for (;;) {
        try {
          return [row.annex, await within(context, { untilMs, patienceMs }, work(row))];
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          const fields = { failover: run.id, step: `${run.step} ${row.annex}`, error: "" };
          world.log.event("failover.failing", { ...fields, ...errorFields(error) }, "warn");
          if (world.clock.monotonicMs() >= untilMs || signal.aborted) {
            return [row.annex, { ...facts[row.annex], status: "left-out", reason }];
          }
          await wait(100);
        }
      }
    }),
  );
  return { ...facts, ...Object.fromEntries(made) };
}

const patienceFor = ({ provider }: AnnexRow, { annexMs, serverMs }: FailoverPatience): number =>
  provider === "physical" ? serverMs : annexMs;

/** Rejects when the work has no answer in time; it goes on all the same. */
export async function within<T>(
  { world }: StepContext,
  { untilMs, patienceMs }: { readonly untilMs: number; readonly patienceMs: number },
  work: Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const leftMs = Math.max(0, untilMs - world.clock.monotonicMs());
  const timer = world.clock.sleep(leftMs, late.signal).then(() => {
    throw new Error(`no answer within ${Math.round(patienceMs)} ms`);
  });
  timer.catch(() => undefined);
  try {
    return await Promise.race([work, timer]);
  } finally {
    work.catch(() => undefined);
    // The timer ends at once, and its word comes too late for anybody.
    late.abort();
  }
}

/**
 * Keeps what was learnt where the next executor finds it. Throws Abandoned: whoever is told to stop has waited
 * for nobody to the end, and who leads no more has nothing to say; either would leave annexes out for good
 * that only had no time to answer.
 */
export async function keepFacts(context: StepContext, annexes: Facts): Promise<void> {
  const { world, run, term, signal } = context;
  if (signal.aborted) throw new Abandoned("raced");
  await world.database.transaction(async (tx) => {
    await requireTurn(tx, term, run);
    await noteRun(tx, run.id, { evidence: { annexes } });
  });
}

export const without = (facts: Facts, annex: string, reason: string): Facts =>
  leaveOut({ annexes: facts }, annex, reason).annexes;

/** What they looked like before the first key came; a second executor takes the first one's word. */
export async function baselineOf(
  { world, run }: StepContext,
  looks: readonly AdopterLook[],
): Promise<readonly AdopterLook[]> {
  const known = run.evidence.baseline ?? [];
  if (known.length > 0) return known;
  await noteRun(world.database.read, run.id, { evidence: { baseline: looks } });
  return looks;
}

/** Undefined: as well as before. Else nobody adopts anything until it is known whose requests went wrong. */
export async function lookForPoison(
  context: StepContext,
  baseline: NonNullable<StepContext["run"]["evidence"]["baseline"]>,
): Promise<Poisoning | undefined> {
  const { world, run, memory } = context;
  const { read } = world.database;
  const looks = await readAdopterLooks(
    read,
    baseline.map(({ annex }) => annex),
  );
  const seenMs = await databaseNowMs(read);
  const signs = looks.flatMap((now) => {
    const before = baseline.find(({ annex }) => annex === now.annex);
    return before === undefined ? [] : signsOf(before, now, world.patience.poison);
  });
  if (signs.length === 0) {
    memory.lastGoodMs = seenMs;
    return undefined;
  }
  const adopted = await readAdopted(read, run.id);
  const lastGoodMs = memory.lastGoodMs ?? seenMs;
  const facts = { signs, lastGoodMs, seenMs, adopted };
  const found = blame(facts, world.patience.poison);
  if (found === undefined || found.suspects.length < 2) return found;
  const marks = await awaitMarks(context, found);
  return blame({ ...facts, marks }, world.patience.poison);
}

const marksLookMs = 50;
/** After the first router told, the others have so long: each tells of it within half a second. */
const marksSettleMs = 800;

/**
 * Routers tell at once when requests are cut off, and an agent may have told before them. Not the first of them
 * alone is asked: the one request that did it was another's, perhaps.
 */
async function awaitMarks(
  { world, wait, signal }: StepContext,
  { signs, suspects }: Poisoning,
): Promise<ReadonlyMap<string, AnnexMarks>> {
  const annexes = [...new Set(signs.map(({ annex }) => annex))];
  const may = new Set(suspects.map(({ key }) => key));
  let untilMs = world.clock.monotonicMs() + world.patience.marksMs;
  let isTold = false;
  for (;;) {
    const marks = await readKeyMarks(world.database.read, annexes);
    const told = [...marks.values()].flatMap((one) => one.marks);
    if (!isTold && told.some(({ key, open }) => open > 0 && may.has(key))) {
      isTold = true;
      untilMs = Math.min(untilMs, world.clock.monotonicMs() + marksSettleMs);
    }
    if (world.clock.monotonicMs() >= untilMs || signal.aborted) return marks;
    await wait(marksLookMs);
  }
}

/** Of a wave that is suspected as a whole each key's own row says it, too. */
const keptMax = 20;

/** Nothing more is adopted; the suspects are served by nobody, and people are told which and what to type. */
export function poisoned({ run, world }: StepContext, found: Poisoning): StepResult {
  const text = poisonText(run.id, found);
  const sign = found.signs.map((one) => `${one.annex}: ${one.text}`).join("; ");
  world.log.event("failover.poisoned", { failover: run.id, cell: run.cell, text }, "error");
  const evidence = {
    poisoned: [
      ...(run.evidence.poisoned ?? []),
      ...found.signs.map((one) => ({
        ...{ annex: one.annex, sign: one.text, suspects: found.suspects.length },
        ...{ spared: found.spared, because: found.suspects.slice(0, keptMax) },
      })),
    ],
  };
  return {
    event: "poisoned",
    headline: text,
    within: async (tx) => {
      await quarantineKeys(tx, run, found.suspects, sign);
      return { evidence };
    },
    events: [{ kind: "failover.poisoned", object: run.cell, text }],
  };
}
