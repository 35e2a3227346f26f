/**
 * The control path: lead → snapshot → decide → apply, one sentence per turn. Every operation is looked
 * at each turn and moved as far as the facts allow; what it did is in the database before anything
 * follows from it, so this process may be killed between any two lines and another goes on.
 */
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import { errorFields } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { FleetSnapshot, OpView } from "../core/fleet.ts";
import { opMachines, parseOpKind } from "../core/ops/kinds.ts";
import type { OpTurn } from "../core/ops/machine.ts";
import type { Database } from "../store/database.ts";
import { applyLightTurns, applyNote, applyTurn, type Decided, isLight } from "../store/effects.ts";
import { readFleet } from "../store/fleet-store.ts";
import { type Asking, createAsking } from "./asking.ts";
import type { Leadership } from "./lead.ts";
import type { Provider } from "./provider.ts";

export type ReconcileEvents = {
  "turn.done": { sentence: string };
  "op.moved": { op: string; kind: string; object: string; to: string; headline: string };
  "op.stuck": { op: string; error: string };
};

export type ReconcileOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<ReconcileEvents>;
  readonly lead: Pick<Leadership, "term">;
  readonly provider: Provider;
  readonly onError: (error: unknown) => void;
  /** Told of every snapshot read: what metrics show. */
  readonly onFleet?: (fleet: FleetSnapshot) => void;
};

export type Reconciler = {
  readonly wake: () => void;
  /** What the last turn came to, for people. */
  readonly sentence: () => string;
  readonly close: () => Promise<void>;
};

const intervalMs = 500;
const backoffMaxMs = 5000;
/** Operations applied at the same time; each takes one connection. */
const lanes = 4;
/** Light turns in one transaction. */
const batchMax = 100;
const noteAfterMs = 400;

export function startReconciling(options: ReconcileOptions): Reconciler {
  let sentence = "no turn yet";
  const listening = createListening();
  const asking = createAsking({ ...options, onAnswer: () => loop.wake() });
  const loop: Loop = startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs,
    backoffMaxMs,
    onError: options.onError,
    turn: async (signal) => {
      const done = await turn(options, { asking, listening }, signal);
      if (done.sentence !== sentence) options.log.event("turn.done", done, "debug");
      sentence = done.sentence;
      return done.moved > 0 ? "again" : "idle";
    },
  });
  return {
    wake: loop.wake,
    sentence: () => sentence,
    close: async () => {
      await loop.close();
      await asking.close();
    },
  };
}

type GoTurn = Extract<OpTurn, { kind: "go" }>;
type Turned = { readonly sentence: string; readonly moved: number };

/**
 * Since when this process has led, by the database's clock, which is what sightings are counted by:
 * before that nobody may have listened, and silence was not the routers' fault.
 */
type Listening = (term: number, nowMs: number) => number;

function createListening(): Listening {
  let led: { readonly term: number; readonly sinceMs: number } | undefined;
  return (term, nowMs) => {
    if (led?.term !== term) led = { term, sinceMs: nowMs };
    return led.sinceMs;
  };
}

async function turn(
  options: ReconcileOptions,
  { asking, listening }: { readonly asking: Asking; readonly listening: Listening },
  signal: AbortSignal,
): Promise<Turned> {
  const term = options.lead.term();
  if (term === undefined) return { sentence: "no action: another control plane leads", moved: 0 };
  const seen = await readFleet(options.database);
  const fleet = { ...seen, listeningSinceMs: listening(term, seen.nowMs) };
  options.onFleet?.(fleet);
  if (fleet.mode === "recovering") {
    return { sentence: "no action: the fleet is recovering from a restore", moved: 0 };
  }
  const cases = fleet.ops.flatMap((op) => decide(term, fleet, op));
  const { moved, left } = await moveTogether(options, cases);
  const queue = left.filter(({ op }) => !asking.isUnderWay(op.id));
  let alone = 0;
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      if (signal.aborted) return;
      if (await moveOp(options, asking, next)) alone += 1;
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
  return { sentence: sentenceOf(fleet, moved + alone), moved: moved + alone };
}

type Case = {
  readonly who: Who;
  readonly fleet: FleetSnapshot;
  readonly op: OpView;
  readonly decided: OpTurn;
};
type Who = { readonly term: number; readonly nowMs: number };

/** Nothing for an operation of another release or another part of the house: not ours to judge. */
function decide(term: number, fleet: FleetSnapshot, op: OpView): Case[] {
  const kind = parseOpKind(op.kind);
  if (kind === undefined) return [];
  // The database's clock: what deadlines and sightings are counted by.
  const who = { term, nowMs: fleet.nowMs };
  return [{ who, fleet, op, decided: opMachines[kind].turn({ op, fleet }) }];
}

/** Light turns share transactions; a batch in which one raced is left to be tried one by one. */
async function moveTogether(
  options: ReconcileOptions,
  cases: readonly Case[],
): Promise<{ readonly moved: number; readonly left: readonly Case[] }> {
  const light: Array<Decided & { readonly from: Case }> = [];
  const left: Case[] = [];
  for (const one of cases) {
    const { op, decided } = one;
    if (decided.kind === "go" && isLight({ op, turn: decided })) {
      light.push({ op, turn: decided, from: one });
    } else left.push(one);
  }
  let moved = 0;
  for (let at = 0; at < light.length; at += batchMax) {
    const batch = light.slice(at, at + batchMax);
    const [first] = batch;
    if (first === undefined) break;
    const applied = await applyLightTurns(options.database, first.from.who, batch);
    if (applied === "applied") {
      moved += batch.length;
      for (const { op, turn } of batch) logMoved(options, op, turn);
    } else left.push(...batch.map(({ from }) => from));
  }
  return { moved, left };
}

function logMoved(options: ReconcileOptions, op: OpView, turn: GoTurn): void {
  const { id, kind, object } = op;
  const fields = { op: id, kind, object, to: turn.to, headline: turn.headline };
  options.log.event("op.moved", fields);
}

function sentenceOf(fleet: FleetSnapshot, moved: number): string {
  if (fleet.ops.length === 0) return "no action: no operation is open";
  return `${moved} of ${fleet.ops.length} open operations went on`;
}

/** True: the operation went on, so another look may find more to do at once. */
async function moveOp(options: ReconcileOptions, asking: Asking, about: Case): Promise<boolean> {
  const { op, who } = about;
  try {
    return await carryOut(options, asking, about);
  } catch (error) {
    if (!(error instanceof CellError)) {
      options.log.event("op.stuck", { op: op.id, error: "", ...errorFields(error) }, "error");
      return false;
    }
    await applyTurn(options.database, who, op, refused(op, error));
    return true;
  }
}

async function carryOut(options: ReconcileOptions, asking: Asking, about: Case): Promise<boolean> {
  const { op, who, decided } = about;
  if (decided.kind === "wait") return noteWaiting(options, about, decided.headline);
  if (decided.kind === "call") {
    await asking.ask(about, decided);
    return false;
  }
  const applied = await applyTurn(options.database, who, op, decided);
  if (applied === "applied") logMoved(options, op, decided);
  return applied === "applied";
}

/** What is waited for is told when it takes long enough for somebody to wonder. */
async function noteWaiting(
  options: ReconcileOptions,
  { op, who }: Case,
  headline: string,
): Promise<false> {
  if (headline !== op.headline && who.nowMs - op.updatedAtMs >= noteAfterMs) {
    await applyNote(options.database, who, op, { headline });
  }
  return false;
}

/** A rule forbids the effect now, though the plan was allowed: the operation ends and says so. */
function refused(op: OpView, error: CellError): GoTurn {
  return {
    kind: "go",
    from: op.step,
    event: "refused",
    to: "failed",
    state: "failed",
    headline: error.message,
    effects: [],
    failure: { code: error.code, message: error.message, nextSteps: error.nextSteps },
  };
}
