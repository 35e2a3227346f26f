/**
 * Keeps the fleet's standbys, in the process that leads: who is to keep what is decided from one look
 * at the rows (core/standby/arrange.ts), each standby goes on along its own life (core/standby/life.ts), and
 * what has to be done for it is done beside this loop (hands.ts). All that is remembered here may be lost:
 * whoever leads next goes on from the rows.
 *
 * What must always be true: a standby in the hands of a failover is not touched; nothing is done that
 * was not recorded before.
 */
import type { FailoverStep } from "../../../contract/failover-api.ts";
import type { StandbyProviderName } from "../../../contract/standby-api.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import type { StandbyProvider } from "../../../standby/ports.ts";
import type { CellView } from "../../core/fleet.ts";
import { arrange, type Making } from "../../core/standby/arrange.ts";
import { nextOfStandby, type StandbyFacts } from "../../core/standby/life.ts";
import { isLiving, type StandbyView } from "../../core/standby/standby-view.ts";
import type { Database } from "../../store/database.ts";
import { nextAnnexId } from "../../store/standby/annex-ids.ts";
import type { PartnerNumbers } from "../../store/standby/read.ts";
import {
  changeStandby,
  type Leader,
  planStandby,
  recordLooks,
} from "../../store/standby/record.ts";
import { readStandbyWorld, type StandbyWorld } from "../../store/standby/world.ts";
import { emptyCell } from "../emptying/emptying.ts";
import type { Leadership } from "../lead.ts";
import type { ResolveSecret } from "../moving/task.ts";
import type { Provider } from "../provider.ts";
import { createHands, type Hands } from "./hands.ts";
import { buildPair } from "./pair.ts";
import { createSettling, type Settling, type SettlingLimits, settlingDefault } from "./settling.ts";
import { createWarming, type Warming } from "./warming.ts";
import { createStreamWatch, type StreamWatch } from "./watch.ts";

export type KeeperOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly provider: Provider;
  readonly standby: StandbyProvider;
  /** How new standbys are kept. */
  readonly kind: StandbyProviderName;
  readonly resolve: ResolveSecret;
  /** Partners per cell; 0: none, and those that stand leave. */
  readonly partners: number;
  /** The application is kept running at standbys that are ready. Absent: only once they serve. */
  readonly warm?: boolean;
  readonly limits?: Partial<SettlingLimits>;
  /** Between two looks at everything. Default: a second. */
  readonly everyMs?: number;
  /** Told of every look: what metrics show. */
  readonly onWorld?: (world: StandbyWorld) => void;
  readonly onError: (error: unknown) => void;
};

export type Keeper = { readonly wake: () => void; readonly close: () => Promise<void> };

const everyMsDefault = 1000;
const backoffMaxMs = 5000;

/** Tenants wait: nothing that can come a minute later takes part of the processors. */
const takeoverSteps: ReadonlySet<FailoverStep> = new Set<FailoverStep>([
  ...(["confirmed", "revoking", "severing", "adopting", "routing", "verifying"] as const),
]);

type Parts = {
  readonly options: KeeperOptions;
  readonly settling: Settling;
  readonly watch: StreamWatch;
  readonly hands: Hands;
  readonly warming: Warming;
};

export function startKeeping(options: KeeperOptions): Keeper {
  const { clock, lead, everyMs = everyMsDefault } = options;
  const settling = createSettling({ ...settlingDefault, ...options.limits });
  const wake = () => loop.wake();
  const watch = createStreamWatch({ ...options, everyMs, onChange: wake });
  const hands = createHands({ ...options, watch, everyMs, onDone: wake });
  const warming = createWarming(options);
  const parts: Parts = { options, settling, watch, hands, warming };
  let term: number | undefined;

  const loop: Loop = startLoop({
    ...{
      clock,
      random: options.random,
      intervalMs: everyMs,
      backoffMaxMs,
      onError: options.onError,
    },
    turn: async () => {
      const now = lead.term();
      if (now !== term) {
        await Promise.all([hands.stopAll(), warming.stopAll()]);
        settling.forget();
        term = now;
      }
      return now === undefined ? "idle" : turn(parts, now);
    },
  });
  return {
    wake,
    close: async () => {
      await loop.close();
      await Promise.all([hands.stopAll(), warming.stopAll()]);
      await watch.close();
    },
  };
}

async function turn(parts: Parts, term: number): Promise<"again" | "idle"> {
  const { options, settling } = parts;
  const { database, clock, lead } = options;
  const world = await readStandbyWorld(database);
  options.onWorld?.(world);
  if (world.mode === "recovering") return "idle";
  const leader = (): Leader | undefined =>
    lead.term() === term ? { term, nowMs: clock.nowMs() } : undefined;
  const takingOver = [...world.failovers.values()].some((step) => takeoverSteps.has(step));
  const { settled, lost } = settling.see(world.cells, clock.monotonicMs(), takingOver);
  let changed = settled ? await rearrange(parts, world, { term, lost }) : 0;
  for (const one of world.standbys) changed += await goOn(parts, world, one, leader);
  for (const one of world.standbys.filter((each) => isLeftOver(each, world))) {
    changed += await emptyLeftOver(options, one, term);
  }
  await recordLooks(database, { term, nowMs: clock.nowMs() }, looksOf(parts, world));
  if (options.warm === true) parts.warming.see(world);
  return changed > 0 ? "again" : "idle";
}

/** What is wanted, as far as it differs: each in its own transaction, so that a crash in between leaves whole steps. */
async function rearrange(
  { options }: Parts,
  world: StandbyWorld,
  { term, lost }: { readonly term: number; readonly lost: ReadonlySet<string> },
): Promise<number> {
  const { database, clock } = options;
  const failingOver = new Set(beforeReprotection(world.failovers));
  const wanted = options.partners;
  const { make, leave } = arrange({ ...world, wanted, lost, failingOver });
  let changed = 0;
  const leader = { term, nowMs: clock.nowMs() };
  for (const one of make) changed += (await plan(options, leader, one)) ? 1 : 0;
  for (const { annex, reason } of leave) {
    const from = world.standbys.find((one) => one.annex === annex)?.state ?? "gone";
    changed += (await changeStandby(database, leader, { annex, from, to: "leaving", reason }))
      ? 1
      : 0;
  }
  return changed;
}

async function plan(
  { database, kind }: KeeperOptions,
  leader: Leader,
  { origin, host, buckets }: Making,
): Promise<boolean> {
  const { annex, generation } = await nextAnnexId(database.read, origin, host);
  const wanted = { annex, origin, host, generation, provider: kind, buckets };
  return planStandby(database, leader, wanted);
}

/** It serves keys, and no failover brings them on: the control plane was set back, and has forgotten which. */
const isLeftOver = ({ state, keys, origin }: StandbyView, { failovers }: StandbyWorld): boolean =>
  state === "adopted" && keys > 0 && !failovers.has(origin);

async function emptyLeftOver(
  { database, clock, random }: KeeperOptions,
  { annex, host, origin }: StandbyView,
  term: number,
): Promise<number> {
  const { begun } = await emptyCell(
    { database, clock, random },
    {
      ...{ from: annex, op: "", term, prefer: [host] },
      reason: `an earlier failover of ${origin} left it here: into a whole cell, where it has a standby again`,
    },
  );
  return begun;
}

/** A failover that has come to re-protection has done with standbys that it did not adopt. */
function beforeReprotection(failovers: ReadonlyMap<string, FailoverStep>): string[] {
  return [...failovers]
    .filter(([, step]) => step !== "reprotecting" && step !== "evacuating")
    .map(([cell]) => cell);
}

/** One standby: looked at, moved along its life as far as the facts allow, and worked on. */
async function goOn(
  { options, watch, hands }: Parts,
  world: StandbyWorld,
  one: StandbyView,
  leader: () => Leader | undefined,
): Promise<number> {
  const { database, resolve } = options;
  const { annex } = one;
  const facts = factsOf(world, one, watch.seen(annex));
  if (facts.failingOver && one.state !== "adopted") return 0;
  if (isLiving(one) && one.state !== "planned") {
    watch.look(annex, () => buildPair(database.read, resolve, one));
  }
  const who = leader();
  if (who === undefined) return 0;
  const next = nextOfStandby(one, facts);
  if (next.kind === "go") {
    const { to, reason } = next;
    return (await changeStandby(database, who, { annex, from: one.state, to, reason })) ? 1 : 0;
  }
  const host = world.cells.find(({ id }) => id === one.host);
  const hostGone = host === undefined || host.state === "retired";
  hands.take({ one, leader, origin: facts.origin, hostGone, seen: facts.stream });
  return 0;
}

function factsOf(
  { cells, partners, moves, failovers }: StandbyWorld,
  { annex, origin }: StandbyView,
  stream: StandbyFacts["stream"],
): StandbyFacts {
  const failingOver = beforeReprotection(failovers).includes(origin);
  const cell = cells.find(({ id }) => id === origin);
  const numbers: PartnerNumbers | undefined = partners.get(origin);
  return {
    origin: isOrigin(cell) || failingOver ? "there" : "gone",
    acked: numbers?.acked ?? 0,
    moves: moves.get(annex) ?? 0,
    ...{ stream, failingOver },
  };
}

const isOrigin = (cell: CellView | undefined): boolean =>
  cell !== undefined && cell.state !== "retired" && cell.state !== "quarantined" && !cell.revoking;

/** Why it does not go on: what was seen of its stream, or what was tried for it last. */
function looksOf({ watch, hands }: Parts, world: StandbyWorld) {
  const failing = new Set(beforeReprotection(world.failovers));
  return world.standbys
    .filter(
      ({ state, origin }) => state !== "adopting" && state !== "adopted" && !failing.has(origin),
    )
    .map((one) => {
      const stream = watch.seen(one.annex);
      const facts = factsOf(world, one, stream);
      const next = nextOfStandby(one, facts);
      const trouble = hands.trouble(one.annex);
      const reason = trouble !== "" ? trouble : next.kind === "stay" ? next.reason : one.reason;
      return { annex: one.annex, state: one.state, lagBytes: watch.lagBytes(one.annex), reason };
    });
}
