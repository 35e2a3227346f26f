/**
 * Calls to the provider take long; they run beside the loop, one per operation, and their answers are
 * written into the operation. An answer that is lost with this process is asked for again: every
 * action of a provider may be asked twice.
 */

import type { CellAction } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import type { ProvidedCell } from "../../contract/provider-api.ts";
import type { FleetSnapshot, OpView, ProviderNote } from "../core/fleet.ts";
import type { Decision } from "../core/ops/machine.ts";
import { cellOf } from "../core/ops/machine.ts";
import { checkSafety, leavingCells } from "../core/safety.ts";
import { applyNote } from "../store/effects.ts";
import { recordProvided } from "../store/provided.ts";
import { overridesOf, requireStillSafe } from "../store/safety.ts";
import { mintAgentToken } from "./provider.ts";
import type { ReconcileOptions } from "./reconcile.ts";

type Call = Extract<Decision<string>, { kind: "call" }>;
type Case = {
  readonly op: OpView;
  readonly fleet: FleetSnapshot;
  readonly who: { readonly term: number; readonly nowMs: number };
};

export type Asking = {
  /** Begins the call; throws CellError when a safety rule forbids it now. */
  readonly ask: (about: Case, call: Call) => Promise<void>;
  readonly isUnderWay: (op: string) => boolean;
  readonly close: () => Promise<void>;
};

/** Operations remembered; forgetting one costs at most a question asked twice. */
const answeredMax = 1000;

export function createAsking(
  options: Omit<ReconcileOptions, "onFleet"> & { readonly onAnswer: () => void },
): Asking {
  const underWay = new Map<string, Promise<void>>();
  /** The version of each operation for which an answer is written: an older snapshot must not ask again. */
  const answered = new Map<string, number>();
  const stop = new AbortController();

  async function run(about: Case, call: Call): Promise<void> {
    const note = await callProvider(options, about, call, stop.signal);
    if (stop.signal.aborted) return;
    const { op, who } = about;
    if (note.answer !== null) await recordProvided(options.database, who.term, note.answer);
    const headline = note.answer?.text ?? `the provider failed: ${note.error}`;
    const noted = await applyNote(options.database, who, op, {
      headline: headline === "" ? call.headline : headline,
      result: { provider: note },
    });
    if (noted === "applied") remember(op);
  }

  function remember({ id, version }: OpView): void {
    answered.delete(id);
    answered.set(id, version);
    const [oldest] = answered.keys();
    if (answered.size > answeredMax && oldest !== undefined) answered.delete(oldest);
  }

  return {
    isUnderWay: (op) => underWay.has(op),
    ask: async (about, call) => {
      if (about.op.version <= (answered.get(about.op.id) ?? 0)) return;
      await requireSafe(options, about, call);
      const work = run(about, call)
        .catch(options.onError)
        .finally(() => {
          underWay.delete(about.op.id);
          options.onAnswer();
        });
      underWay.set(about.op.id, work);
    },
    close: async () => {
      stop.abort();
      await Promise.all(underWay.values());
    },
  };
}

/** Checked when it was planned; the fleet may have changed since (promise 9). */
async function requireSafe(
  { database }: Pick<ReconcileOptions, "database">,
  { op, fleet }: Case,
  call: Call,
): Promise<void> {
  const action: CellAction | undefined =
    call.action === "kill" || call.action === "stop" ? call.action : undefined;
  const cell = cellOf(fleet, call.cell);
  // Once asked it may have happened: from there on it is only finished.
  if (action === undefined || cell === undefined || op.provider !== null) return;
  const refusal = checkSafety(action, cell, fleet.cells, leavingCells(fleet.ops, op.id));
  if (refusal !== undefined) throw new CellError("SAFETY_RULE", refusal.text);
  const operation = { kind: `cell.${action}`, cell: call.cell, id: op.id } as const;
  await requireStillSafe(database.read, operation, overridesOf(op.input));
}

async function callProvider(
  options: Omit<ReconcileOptions, "onFleet">,
  { op, who }: Case,
  call: Call,
  signal: AbortSignal,
): Promise<ProviderNote> {
  const before = op.provider;
  const action = call.action === "look" ? (before?.action ?? "create") : call.action;
  try {
    const answer = await answerOf(options, { op, who, call, signal });
    return { answer, action, failures: 0, error: "", askedAtMs: who.nowMs };
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    const failures = (before?.action === action ? before.failures : 0) + 1;
    return { answer: null, action, failures, error: error.message, askedAtMs: who.nowMs };
  }
}

async function answerOf(
  options: Omit<ReconcileOptions, "onFleet">,
  asked: {
    readonly op: OpView;
    readonly who: Case["who"];
    readonly call: Call;
    readonly signal: AbortSignal;
  },
): Promise<ProvidedCell> {
  const { op, who, call, signal } = asked;
  const { provider, database, random } = options;
  if (call.action === "look") return provider.look(call.cell, signal);
  if (call.action !== "create") return provider.act(call.cell, call.action, { op: op.id }, signal);
  const about = { cell: call.cell, op: op.id };
  const agentToken = await mintAgentToken(database, random, who, about);
  if (agentToken === undefined)
    throw new CellError("PROVIDER_FAILED", "another control plane leads");
  return provider.act(call.cell, "create", { op: op.id, agentToken }, signal);
}
