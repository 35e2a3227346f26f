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
import { type Applied, applyNote, applyTurn } from "../store/effects.ts";
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

export function startReconciling(options: ReconcileOptions): Reconciler {
  let sentence = "no turn yet";
  const asking = createAsking({ ...options, onAnswer: () => loop.wake() });
  const loop: Loop = startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs,
    backoffMaxMs,
    onError: options.onError,
    turn: async (signal) => {
      const done = await turn(options, asking, signal);
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

type Turned = { readonly sentence: string; readonly moved: number };

async function turn(
  options: ReconcileOptions,
  asking: Asking,
  signal: AbortSignal,
): Promise<Turned> {
  const term = options.lead.term();
  if (term === undefined) return { sentence: "no action: another control plane leads", moved: 0 };
  const fleet = await readFleet(options.database);
  options.onFleet?.(fleet);
  if (fleet.mode === "recovering") {
    return { sentence: "no action: the fleet is recovering from a restore", moved: 0 };
  }
  let moved = 0;
  const queue = [...fleet.ops];
  const work = async () => {
    for (let op = queue.shift(); op !== undefined; op = queue.shift()) {
      if (signal.aborted) return;
      if (await moveOp(options, asking, { term, fleet, op })) moved += 1;
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
  return { sentence: sentenceOf(fleet, moved), moved };
}

function sentenceOf(fleet: FleetSnapshot, moved: number): string {
  if (fleet.ops.length === 0) return "no action: no operation is open";
  return `${moved} of ${fleet.ops.length} open operations went on`;
}

type Case = { readonly term: number; readonly fleet: FleetSnapshot; readonly op: OpView };

/** True: the operation went on, so another look may find more to do at once. */
async function moveOp(options: ReconcileOptions, asking: Asking, about: Case): Promise<boolean> {
  const { op, fleet, term } = about;
  if (asking.isUnderWay(op.id)) return false;
  const kind = parseOpKind(op.kind);
  // Of another release or another part of the house: not ours to judge.
  if (kind === undefined) return false;
  const decided = opMachines[kind].turn({ op, fleet });
  // The database's clock: what deadlines and sightings are counted by.
  const who = { term, nowMs: fleet.nowMs };
  try {
    return await carryOut(options, asking, { ...about, who }, decided);
  } catch (error) {
    if (!(error instanceof CellError)) {
      options.log.event("op.stuck", { op: op.id, error: "", ...errorFields(error) }, "error");
      return false;
    }
    await applyTurn(options.database, who, op, refused(op, error));
    return true;
  }
}

type Who = { readonly term: number; readonly nowMs: number };

async function carryOut(
  options: ReconcileOptions,
  asking: Asking,
  about: Case & { readonly who: Who },
  decided: OpTurn,
): Promise<boolean> {
  const { op, who } = about;
  const { headline } = decided;
  if (decided.kind !== "go" && headline !== op.headline) {
    const noted = await applyNote(options.database, who, op, { headline });
    // The next turn sees the new version and acts on it.
    return noted === "applied";
  }
  if (decided.kind === "wait") return false;
  if (decided.kind === "call") {
    asking.ask(about, decided);
    return false;
  }
  const applied: Applied = await applyTurn(options.database, who, op, decided);
  if (applied === "applied") {
    const { id, kind, object } = op;
    options.log.event("op.moved", { op: id, kind, object, to: decided.to, headline });
  }
  return applied === "applied";
}

/** A rule forbids the effect now, though the plan was allowed: the operation ends and says so. */
function refused(op: OpView, error: CellError): Extract<OpTurn, { kind: "go" }> {
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
