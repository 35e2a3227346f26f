/**
 * What is done for a standby, step by step from its row: annex, stream, mending, removal. Everything may
 * be done again by another process after a crash. Few at a time, so that a fleet's first standbys do
 * not stand in its traffic's way; what fails is tried again, ever more rarely.
 */
import { CellError } from "../../../contract/errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Random } from "../../../runtime/random.ts";
import type { StandbyProvider } from "../../../standby/ports.ts";
import type { StreamSeen } from "../../core/standby/life.ts";
import type { StandbyView } from "../../core/standby/standby-view.ts";
import type { Database } from "../../store/database.ts";
import { ownedBy } from "../../store/placements.ts";
import {
  buryStandby,
  changeStandby,
  type Leader,
  recordAnnex,
} from "../../store/standby/record.ts";
import type { ResolveSecret } from "../moving/task.ts";
import { mintAgentToken, type Provider } from "../provider.ts";
import { buildPair } from "./pair.ts";
import { type StreamWatch, textOf } from "./watch.ts";

export type HandsOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly provider: Provider;
  readonly standby: StandbyProvider;
  readonly resolve: ResolveSecret;
  readonly watch: StreamWatch;
  /** Between two looks; pauses are counted in it. */
  readonly everyMs: number;
  /** Something was done: look again at once. */
  readonly onDone: () => void;
};

export type Task = {
  readonly one: StandbyView;
  readonly leader: () => Leader | undefined;
  readonly origin: "there" | "gone";
  /** Its host has left the fleet: nothing of the annex can be reached, or need be. */
  readonly hostGone: boolean;
  readonly seen: StreamSeen;
};

export type Hands = {
  /** Begins what its state asks for, unless that is under way, or failed a moment ago. */
  readonly take: (task: Task) => void;
  /** Why the last try failed; empty: none did since the last that succeeded. */
  readonly trouble: (annex: string) => string;
  readonly stopAll: () => Promise<void>;
};

const togetherMax = 3;
const retryMostMs = 60_000;
/** A stream that broke is left alone for a while, in looks, before more than going on is tried. */
const mendFirstLooks = 5;
const mendMostMs = 600_000;
const creatingLookMs = 300;
/** After something was done its effect is looked at, so often, before more is. */
const restLooks = 2;

type Failing = { readonly times: number; readonly notBeforeMs: number; readonly text: string };

export function createHands(options: HandsOptions): Hands {
  const { clock, everyMs } = options;
  const busy = new Map<string, { readonly stop: AbortController; readonly done: Promise<void> }>();
  const failing = new Map<string, Failing>();

  function note(one: StandbyView, text: string): void {
    const times = (failing.get(one.annex)?.times ?? 0) + 1;
    const [first, most] =
      one.state === "broken" ? [everyMs * mendFirstLooks, mendMostMs] : [everyMs, retryMostMs];
    const pauseMs = Math.min(first * 2 ** Math.min(times - 1, 20), most);
    failing.set(one.annex, { times, notBeforeMs: clock.monotonicMs() + pauseMs, text });
  }

  async function run(task: Task, work: Work, signal: AbortSignal): Promise<void> {
    const { annex } = task.one;
    try {
      const tries = failing.get(annex)?.times ?? 0;
      await work(options, task, { signal, tries });
      // What is mended shows in the next look; until then it counts as a try.
      if (task.one.state === "broken") note(task.one, task.one.reason);
      else {
        const notBeforeMs = clock.monotonicMs() + everyMs * restLooks;
        failing.set(annex, { times: 0, notBeforeMs, text: "" });
      }
    } catch (error) {
      if (!signal.aborted) note(task.one, textOf(error));
    } finally {
      options.watch.forget(annex);
      busy.delete(annex);
      if (!signal.aborted) options.onDone();
    }
  }

  return {
    take: (task) => {
      const { annex } = task.one;
      const work = workOf(task);
      if (work === undefined) {
        if (isAtRest(task)) failing.delete(annex);
        return;
      }
      const failed = failing.get(annex);
      const waits = failed !== undefined && clock.monotonicMs() < failed.notBeforeMs;
      if (waits || busy.has(annex) || busy.size >= togetherMax) return;
      const stop = new AbortController();
      busy.set(annex, { stop, done: run(task, work, stop.signal) });
    },
    trouble: (annex) => failing.get(annex)?.text ?? "",
    stopAll: async () => {
      const all = [...busy.values()];
      for (const { stop } of all) stop.abort();
      await Promise.all(all.map(({ done }) => done));
      failing.clear();
    },
  };
}

type Work = (
  options: HandsOptions,
  task: Task,
  run: { readonly signal: AbortSignal; readonly tries: number },
) => Promise<void>;

function workOf({ one, seen }: Task): Work | undefined {
  switch (one.state) {
    case "planned":
      return makeAnnex;
    // Of what nobody could look at nothing is known that could be gone on from.
    case "building":
    case "syncing":
      return seen.kind === "unseen" || isInStep(seen) ? undefined : makeStream;
    case "broken":
      return seen.kind === "unseen" || seen.phase === "severed" ? undefined : mend;
    case "dropping":
      return remove;
    default:
      return undefined;
  }
}

const isInStep = (seen: Extract<StreamSeen, { kind: "seen" }>): boolean =>
  seen.phase === "streaming" && seen.uncovered.length === 0;

const isAtRest = ({ one }: Task): boolean => one.state === "ready" || one.state === "announcing";

const makeAnnex: Work = async (options, task, { signal }) => {
  const { one } = task;
  if (!one.byHand) await createByProvider(options, task, signal);
  const leader = task.leader();
  if (leader === undefined) return;
  const change = { annex: one.annex, from: "planned", to: "building" } as const;
  await changeStandby(options.database, leader, { ...change, reason: "its stream is being made" });
};

async function createByProvider(
  { database, random, clock, provider }: HandsOptions,
  { one, leader }: Task,
  signal: AbortSignal,
): Promise<void> {
  const { annex, origin, host } = one;
  const op = `standby ${annex}`.slice(0, 64);
  const who = leader();
  const agentToken = who && (await mintAgentToken(database, random, who, { cell: annex, op }));
  if (agentToken === undefined) return;
  const asked = { op, agentToken, annex: { origin, host, provider: one.provider } };
  let answer = await provider.act(annex, "create", asked, signal);
  while (answer.state === "creating" && !signal.aborted) {
    await clock.sleep(creatingLookMs, signal);
    answer = await provider.look(annex, signal);
  }
  if (answer.state !== "running") {
    throw new CellError("PROVIDER_FAILED", `The provider has not made ${annex}: ${answer.text}`);
  }
  const now = leader();
  if (now !== undefined) await recordAnnex(database, now, annex, answer);
}

const makeStream: Work = async ({ database, resolve, standby }, { one }, { signal }) => {
  await standby.ensure(await buildPair(database.read, resolve, one), signal);
};

/** First it may go on from where it stands; what still does not is made from nothing. */
const mend: Work = async (options, { one, seen, origin, leader }, { signal, tries }) => {
  const { database, resolve, standby } = options;
  const pair = await buildPair(database.read, resolve, one);
  if (seen.kind === "seen" && seen.uncovered.length > 0) await standby.refresh(pair);
  if (tries <= 1) {
    await standby.ensure(pair, signal);
    return;
  }
  await standby.drop(pair, origin);
  const who = leader();
  if (who === undefined) return;
  const change = { annex: one.annex, from: "broken", to: "building" } as const;
  await changeStandby(database, who, { ...change, reason: `made anew: ${one.reason}` });
};

const remove: Work = async (options, task, { signal }) => {
  const { database, provider } = options;
  const { one, leader } = task;
  // Its only copy, if a failover that was forgotten in a restore gave it keys.
  if ((await ownedBy(database.read, one.annex)).keys > 0) return;
  await dropStream(options, task);
  if (!one.byHand) {
    const answer = await provider.act(one.annex, "destroy", { op: `standby ${one.annex}` }, signal);
    if (answer.state !== "absent") {
      throw new CellError("PROVIDER_FAILED", `${one.annex} is not removed: ${answer.text}`);
    }
  }
  const who = leader();
  if (who !== undefined) await buryStandby(database, who, one.annex);
};

async function dropStream(
  { database, resolve, standby }: HandsOptions,
  { one, origin, hostGone }: Task,
): Promise<void> {
  try {
    await standby.drop(await buildPair(database.read, resolve, one), origin);
  } catch (error) {
    // Nothing was ever made there, or nothing can be reached any more and nobody will.
    const wasNeverMade = one.listedAt === null && isUnfit(error);
    if (!wasNeverMade && !hostGone) throw error;
  }
}

const isUnfit = (error: unknown): boolean =>
  error instanceof CellError && error.code === "STANDBY_BROKEN";
