/**
 * The beginning of a failover: gates under the fleet's lock, the audit entry, the operation and its row, in
 * one transaction. From here on its executor (work/failover) alone changes its step.
 *
 * What must always be true: of two that begin one at once the second finds the first open; nothing of the
 * fleet is touched yet, so `confirmed` may be called off without a trace.
 */

import { CellError } from "../../../contract/errors.ts";
import type { FailoverGate, FailoverPlan, FailoverStep } from "../../../contract/failover-api.ts";
import { type CellId, parseCellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import type { Verdict } from "../../core/failover/detect.ts";
import {
  blockingGates,
  checkGates,
  type FailoverMode,
  gateLimits,
  type Past,
  unknownOverrides,
} from "../../core/failover/gates.ts";
import { buildPlan } from "../../core/failover/plan.ts";
import { type Given, planCommand, startCommands } from "../../core/failover/policy.ts";
import type { CellView } from "../../core/fleet.ts";
import { onePlan } from "../../core/ops/machine.ts";
import { type Actor, recordAudit } from "../audit.ts";
import type { Reader, Tx } from "../database.ts";
import { recordEvents } from "../events.ts";
import { readCell } from "../fleet-store.ts";
import { insertOp } from "../ops.ts";
import { lockNormalFleet } from "../routing-change.ts";
import { failover } from "../schema-standby.ts";
import {
  automatic,
  type FailoverOptions,
  type FailoverRow,
  failoverKind,
  findFailover,
} from "./read.ts";
import { readFacts } from "./start-facts.ts";

export type AskedPlan = FailoverOptions & {
  readonly cell: string;
  readonly mode: FailoverMode;
  /** Nobody asked for it. */
  readonly automatic: boolean;
  /** As judged in this moment; undefined: as the leader wrote down last. */
  readonly verdicts?: readonly Verdict[];
};

const firstStep: FailoverStep = "confirmed";

/** What it would do and what stands against it; changes nothing. Throws CELL_UNKNOWN, STATE_CONFLICT. */
export async function planFailover(reader: Reader, asked: AskedPlan): Promise<FailoverPlan> {
  const { plan } = await lookAt(reader, asked);
  return plan;
}

type Looked = {
  readonly cell: CellView;
  readonly plan: FailoverPlan;
  /** Since it was confirmed gone first; undefined: it never was. */
  readonly goneForMs: number | undefined;
};

async function lookAt(reader: Reader, asked: AskedPlan): Promise<Looked> {
  const cell = await requireWhole(reader, asked.cell);
  const facts = await readFacts(reader, {
    ...{ cell, mode: asked.mode, automatic: asked.automatic, provedDead: asked.provedDead },
    verdicts: asked.verdicts,
  });
  const verdict = facts.verdicts.find((one) => one.cell === cell.id);
  const goneForMs = verdict?.episode?.goneForMs ?? undefined;
  return { cell, plan: buildPlan(facts, checkGates(facts), brand), goneForMs };
}

const brand = (id: string): CellId => must(parseCellId(id), "cell id");

async function requireWhole(reader: Reader, id: string): Promise<CellView> {
  const cell = await readCell(reader, id);
  if (cell === undefined) {
    throw new CellError("CELL_UNKNOWN", `There is no cell ${id}.`, {
      nextSteps: ["cellctl cell ls"],
    });
  }
  if (cell.annex !== null) {
    const { origin, host } = cell.annex;
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is the standby of ${origin} in ${host}: not a cell of its own that could be failed over.`,
      { nextSteps: [`cellctl failover plan ${host}`, `cellctl failover plan ${origin}`] },
    );
  }
  if (cell.state === "retired" || cell.state === "provisioning") {
    throw new CellError("STATE_CONFLICT", `${id} is ${cell.state}: it serves nobody.`, {
      nextSteps: ["cellctl cell ls"],
    });
  }
  return cell;
}

export type AskedFailover = AskedPlan & {
  readonly id: string;
  readonly actor: Actor;
  readonly reason: string;
  readonly nowMs: number;
  /** Writes the audit entry before anything else is written; absent: it is written here. */
  readonly record?: (before: unknown, after: unknown) => Promise<void>;
};

/** Throws FAILOVER_BLOCKED, LEASE_TOO_LONG, CELL_UNKNOWN, STATE_CONFLICT, RECOVERING, VALIDATION_FAILED. */
export async function startFailover(tx: Tx, asked: AskedFailover): Promise<FailoverRow> {
  await lockNormalFleet(tx);
  const { cell, plan, goneForMs } = await requireFit(tx, asked);
  const { id, mode, actor, reason, nowMs, override, allowDataLoss, provedDead } = asked;
  const options: FailoverOptions = { override, allowDataLoss, provedDead };
  const before = { state: cell.state, health: cell.health };
  const after = { op: id, mode, options, gates: plan.gates, witnesses: plan.witnesses };
  if (asked.record === undefined) {
    const entry = { actor, action: "failover.start", object: cell.id, reason };
    await recordAudit(tx, { ...entry, outcome: "accepted", before, after }, nowMs);
  } else await asked.record(before, after);
  const steps = plan.steps.map(({ step, text }) => ({ action: step, object: cell.id, text }));
  await insertOp(tx, {
    ...{ id, kind: failoverKind, object: cell.id, step: firstStep, state: "running" },
    headline: headlineOf(plan),
    plan: onePlan(failoverKind, steps),
    ...{ input: { cell: cell.id, mode, ...options }, actor: actor.name, reason },
    ...{ revision: null, nowMs, deadlineMs: undefined },
  });
  const startedBy = asked.automatic ? automatic : actor.name;
  const row = { op: id, cell: cell.id, region: cell.region, mode, startedBy, plan, options };
  const evidence = goneForMs === undefined ? {} : { goneForMs };
  await tx.insert(failover).values({ ...row, evidence });
  const by = asked.automatic ? "by itself" : `by ${actor.name}`;
  const text = `${mode} failover of ${cell.id} began ${by}: ${headlineOf(plan)}`;
  await recordEvents(tx, [{ kind: "failover.started", object: cell.id, text }]);
  return must(await findFailover(tx, id), "failover that was just recorded");
}

function headlineOf({ mode, partners, unavailable, cell }: FailoverPlan): string {
  if (mode === "planned") return `${cell} is emptied by live moves`;
  const keys = partners.reduce((sum, one) => sum + one.keys, 0) - unavailable.keys;
  const rest = unavailable.keys === 0 ? "" : `, ${unavailable.keys} without a copy`;
  return `${Math.max(0, keys)} keys to adopt${rest}`;
}

/** The plan as it stands, when nothing is against it that was not gone past by name. For dry runs too. */
export async function requireFit(
  reader: Reader,
  asked: AskedPlan & { readonly reason: string },
): Promise<Looked> {
  const looked = await lookAt(reader, asked);
  const { cell, plan } = looked;
  const past: Past = asked.automatic ? { override: [], allowDataLoss: false } : asked;
  requireKnown(plan.gates, past.override);
  const blocked = blockingGates(plan.gates, past);
  const [first] = blocked;
  if (first !== undefined) throw blockedBy(cell, plan, blocked, { ...asked, ...past });
  const goesPast = past.override.length > 0 || past.allowDataLoss || asked.provedDead;
  if (goesPast && asked.reason === "") {
    throw new CellError(
      "VALIDATION_FAILED",
      "Who goes past a gate says why: it stands in the audit log.",
      { nextSteps: ['repeat the command with --reason "…"'] },
    );
  }
  return looked;
}

function requireKnown(gates: readonly FailoverGate[], override: readonly string[]): void {
  const unknown = unknownOverrides(gates, override);
  if (unknown.length === 0) return;
  throw new CellError(
    "VALIDATION_FAILED",
    `override: there is no gate ${unknown.join(", ")}; there are ${gates.map(({ name }) => name).join(", ")}.`,
  );
}

function blockedBy(
  cell: CellView,
  plan: FailoverPlan,
  blocked: readonly FailoverGate[],
  given: Given,
): CellError {
  const { id } = cell;
  const details = { gates: blocked, witnesses: plan.witnesses };
  const lease = blocked.find(({ name }) => name === "lease");
  if (lease !== undefined) {
    return new CellError("LEASE_TOO_LONG", `${id} cannot be taken over now: ${lease.text}.`, {
      details: { ...details, leaseLeftMsMax: gateLimits.leaseLeftMsMax },
      nextSteps: [
        ...(cell.health === "down" ? [`cellctl cell start ${id}`] : []),
        planCommand(id, given),
      ],
    });
  }
  return new CellError(
    "FAILOVER_BLOCKED",
    `${id} is not taken over: ${blocked.map(({ name, text }) => `${name}: ${text}`).join("; ")}.`,
    { details, nextSteps: wayOn(plan, blocked, given) },
  );
}

function wayOn(
  { cell, witnesses }: FailoverPlan,
  blocked: readonly FailoverGate[],
  given: Given,
): string[] {
  const running = blocked.some(({ name }) => name === "operation");
  const steps = [planCommand(cell, given), ...startCommands(cell, blocked, { witnesses, given })];
  return [...(running ? ["cellctl failover ls"] : []), ...new Set(steps)];
}
