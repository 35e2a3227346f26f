/**
 * The leader watches every whole cell: its own probes, what routers and partners say, the verdict of
 * core/failover, and what the policy makes of it. Nothing here touches a cell: a failover is begun as a row,
 * which its executor finds.
 *
 * What must always be true: what was seen under another term, or before this process stood still, counts for
 * nothing; a failover begins by itself only with every gate open, looked at once more under the fleet's lock.
 */

import { CellError } from "../../../contract/errors.ts";
import type { FailoverPolicy } from "../../../contract/failover-api.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import { newOpId, type Random } from "../../../runtime/random.ts";
import {
  type Episode,
  episodeAge,
  followEpisode,
  type Judged,
  judgeCell,
  once,
  stoodStill,
  type Verdict,
  wantsProbe,
} from "../../core/failover/detect.ts";
import { blockingGates } from "../../core/failover/gates.ts";
import { decidePolicy } from "../../core/failover/policy.ts";
import { Abandoned } from "../../store/abandoned.ts";
import { type Database, databaseNowMs } from "../../store/database.ts";
import { type NewEvent, recordEvents } from "../../store/events.ts";
import { automatic, openFailovers } from "../../store/failover/read.ts";
import { planFailover, startFailover } from "../../store/failover/start.ts";
import { readDesk, saveVerdicts } from "../../store/failover/witnesses.ts";
import { holdsTerm } from "../../store/leader.ts";
import type { Leadership } from "../lead.ts";
import { createProber } from "./probe.ts";
import { createSightings } from "./watch-sights.ts";

export type WatchEvents = {
  "cell.judged": { cell: string; state: string; text: string; witnesses: string };
  "failover.begun": { op: string; cell: string };
  "failover.held": { cell: string; text: string };
};

export type WatchOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  /** Where nobody has said otherwise at runtime. */
  readonly policy: FailoverPolicy;
  readonly log: Log<WatchEvents>;
  readonly onError: (error: unknown) => void;
  /** Told of every look: what metrics show. */
  readonly onWatched?: (watched: Watched) => void;
};

export type Watched = {
  readonly verdicts: readonly Verdict[];
  readonly policy: FailoverPolicy;
  /** Failovers that are not over, by the step they are at. */
  readonly steps: readonly string[];
  /** Cells that are confirmed gone and not taken over: automation stands still. */
  readonly held: readonly string[];
};

/** Of one who does not lead. */
const nothing = (policy: FailoverPolicy): Watched => ({
  policy,
  verdicts: [],
  steps: [],
  held: [],
});

/** While all is well the fleet is looked at seldomer than the loop turns. */
const turnMs = 150;
const calmMs = 400;
const backoffMaxMs = 1000;
/** Written down this often for whoever asks, and at once when a state changes. */
const saveEveryMs = 1000;
/** What stands against a takeover is looked at again this often; once it was told, seldomer: it costs a look at every key. */
const gatesEveryMs = { untold: 300, told: 2000 };

type Memory = {
  term: number;
  sinceMs: number;
  lookedMs: number;
  savedMs: number;
  isCalm: boolean;
  readonly states: Map<string, { readonly state: Verdict["state"]; readonly sinceMs: number }>;
  readonly episodes: Map<string, Episode>;
  readonly gatesMs: Map<string, number>;
  readonly held: Set<string>;
};

export function startWatching(options: WatchOptions): Loop {
  const { clock, database } = options;
  let stirred = false;
  const prober = createProber({
    clock,
    onNews: () => {
      stirred = true;
      loop.wake();
    },
  });
  const sightings = createSightings(database, prober);
  let memory: Memory | undefined;

  function remember(term: number, nowMs: number): Memory {
    if (memory?.term === term && !stoodStill(nowMs - memory.lookedMs)) return memory;
    prober.forget();
    sightings.forget();
    // Episodes stay with the term: what was told once is not told again because this process stumbled.
    const episodes = memory?.term === term ? memory.episodes : new Map<string, Episode>();
    memory = {
      ...{ term, sinceMs: nowMs, lookedMs: nowMs, savedMs: Number.NEGATIVE_INFINITY, isCalm: true },
      ...{ states: new Map(), episodes, gatesMs: new Map(), held: new Set() },
    };
    return memory;
  }

  async function turn(): Promise<"idle"> {
    const term = options.lead.term();
    const nowMs = clock.monotonicMs();
    if (term === undefined) {
      if (memory !== undefined) options.onWatched?.(nothing(options.policy));
      memory = undefined;
      return "idle";
    }
    const isFirst = memory?.term !== term;
    if (memory !== undefined && !isFirst && memory.isCalm && !stirred) {
      if (nowMs - memory.lookedMs < calmMs) return "idle";
    }
    const known = remember(term, nowMs);
    known.lookedMs = nowMs;
    stirred = false;
    await look(options, sightings, known);
    // However long it took: what it saw was seen then.
    known.lookedMs = clock.monotonicMs();
    return "idle";
  }

  const loop = startLoop({
    ...{ clock, random: options.random, intervalMs: turnMs, backoffMaxMs, turn },
    onError: options.onError,
  });
  return {
    ...loop,
    close: async () => {
      prober.close();
      await loop.close();
    },
  };
}

type Sightings = ReturnType<typeof createSightings>;

async function look(options: WatchOptions, sightings: Sightings, memory: Memory): Promise<void> {
  const { clock, database } = options;
  const { cells, sights } = await sightings.look(clock.monotonicMs() - memory.sinceMs);
  const judgedMs = clock.monotonicMs();
  const verdicts = sights.map((sight) => withAge(memory, judgeCell(sight), judgedMs));
  sightings.probe(cells, new Set(verdicts.filter(wantsProbe).map(({ cell }) => cell)));
  memory.isCalm = verdicts.every(({ state }) => state === "healthy");
  const desk = await readDesk(database.read);
  const policy = desk.policy ?? options.policy;
  const changed = await saveNews(options, memory, verdicts);
  if (changed) for (const verdict of verdicts) logVerdict(options, verdict);
  const open = await openFailovers(database.read);
  const failing = new Set(open.map(({ failover }) => failover.cell));
  const gone = verdicts.filter(({ state, cell }) => state === "gone" && !failing.has(cell));
  for (const cell of memory.held)
    if (!gone.some((one) => one.cell === cell)) memory.held.delete(cell);
  for (const verdict of gone) await answer(options, memory, { policy, verdict, verdicts });
  options.onWatched?.({
    ...{ verdicts, policy, steps: open.map(({ op }) => op.step), held: [...memory.held] },
  });
}

function withAge(memory: Memory, judged: Judged, nowMs: number): Verdict {
  const known = memory.states.get(judged.cell);
  const since = known?.state === judged.state ? known.sinceMs : nowMs;
  memory.states.set(judged.cell, { state: judged.state, sinceMs: since });
  const episode = episodeAge(memory.episodes.get(judged.cell), judged.state, nowMs);
  return { ...judged, forMs: nowMs - since, episode };
}

/** Verdicts for whoever asks, and an event for each that is news. True: a state changed. */
async function saveNews(
  { database, clock }: WatchOptions,
  memory: Memory,
  verdicts: readonly Verdict[],
): Promise<boolean> {
  const nowMs = clock.monotonicMs();
  const events: NewEvent[] = [];
  for (const verdict of verdicts) {
    const { episode, news } = followEpisode(memory.episodes.get(verdict.cell), verdict, nowMs);
    keep(memory, verdict.cell, episode);
    if (news !== undefined) {
      events.push({ kind: `detection.${verdict.state}`, object: verdict.cell, text: news });
    }
  }
  const isChanged = verdicts.some(({ forMs }) => forMs === 0);
  if (isChanged || nowMs - memory.savedMs >= saveEveryMs) {
    memory.savedMs = nowMs;
    await saveVerdicts(database.read, memory.term, verdicts);
  }
  await tell(database, memory.term, events);
  return isChanged;
}

function keep(memory: Memory, cell: string, episode: Episode | undefined): void {
  if (episode === undefined) memory.episodes.delete(cell);
  else memory.episodes.set(cell, episode);
}

async function tell(database: Database, term: number, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  await database.transaction(async (tx) => {
    if (await holdsTerm(tx, term)) await recordEvents(tx, events);
  });
}

function logVerdict({ log }: WatchOptions, { cell, state, text, witnesses, forMs }: Verdict): void {
  if (forMs > 0) return;
  const said = witnesses.map((one) => `${one.class}=${one.says}`).join(" ");
  log.event("cell.judged", { cell, state, text, witnesses: said });
}

type Case = {
  readonly policy: FailoverPolicy;
  readonly verdict: Verdict;
  readonly verdicts: readonly Verdict[];
};

/** What is done about a cell that is confirmed gone and that nobody fails over yet. */
async function answer(options: WatchOptions, memory: Memory, found: Case): Promise<void> {
  const { database, clock, log } = options;
  const { policy, verdict, verdicts } = found;
  const { cell } = verdict;
  const nowMs = clock.monotonicMs();
  const isTold = (memory.episodes.get(cell)?.told.length ?? 0) > 1;
  const everyMs = isTold ? gatesEveryMs.told : gatesEveryMs.untold;
  if (policy === "off" || nowMs - (memory.gatesMs.get(cell) ?? -everyMs) < everyMs) return;
  memory.gatesMs.set(cell, nowMs);
  const nothingPast = { override: [], allowDataLoss: false, provedDead: false };
  const asked = { cell, mode: "unplanned" as const, automatic: true, verdicts, ...nothingPast };
  const plan = await database.snapshot((tx) => planFailover(tx, asked));
  const blocked = blockingGates(plan.gates, asked);
  const decided = decidePolicy(policy, cell, verdict.text, blocked);
  if (decided.kind === "start") {
    memory.held.delete(cell);
    return begin(options, memory, asked);
  }
  if (decided.kind === "nothing") return;
  if (decided.kind === "held") memory.held.add(cell);
  const kind = decided.kind === "held" ? "failover.held" : "failover.suggested";
  const mark = `${kind} ${blocked.map(({ name }) => name).join(" ")}`;
  const episode = memory.episodes.get(cell);
  if (episode === undefined) return;
  const told = once(episode, mark, `${decided.text}. ${decided.command}`);
  keep(memory, cell, told.episode);
  if (told.news === undefined) return;
  log.event("failover.held", { cell, text: told.news });
  await tell(database, memory.term, [{ kind, object: cell, text: told.news }]);
}

async function begin(
  { database, clock, random, log }: WatchOptions,
  memory: Memory,
  asked: Parameters<typeof planFailover>[1],
): Promise<void> {
  try {
    const { op } = await database.transaction(async (tx) => {
      if (!(await holdsTerm(tx, memory.term))) throw new Abandoned("deposed");
      const nowMs = await databaseNowMs(tx);
      const actor = { name: automatic, role: "system" };
      const reason = asked.verdicts?.find(({ cell }) => cell === asked.cell)?.text ?? "";
      const id = newOpId(random, clock.nowMs());
      return startFailover(tx, { ...asked, ...{ id, actor, reason, nowMs } });
    });
    log.event("failover.begun", { op: op.id, cell: asked.cell });
  } catch (error) {
    // The fleet changed since the plan: the next look says what stands against it now.
    if (error instanceof Abandoned || error instanceof CellError) return;
    throw error;
  }
}
