/**
 * Applies one turn of an operation: the leader's term, the compare-and-set on the operation's version
 * and every effect, in one transaction. What was true when the turn was decided is checked again here,
 * under the locks.
 */
import { eq, inArray, sql } from "drizzle-orm";
import type { CellState } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { assert, must, unreachable } from "../../runtime/assert.ts";
import { mayBecome } from "../core/cell-state.ts";
import type { OpView } from "../core/fleet.ts";
import { checkOwesNothing } from "../core/open-deletions.ts";
import type { Effect, OpTurn } from "../core/ops/machine.ts";
import { adoptionGoesOn, checkAdoption, checkOwnsNothing, checkSafety } from "../core/safety.ts";
import { Abandoned } from "./abandoned.ts";
import { recordable } from "./audit-chain.ts";
import type { Database, Tx } from "./database.ts";
import { type NewEvent, recordEvents } from "./events.ts";
import { readCells } from "./fleet-store.ts";
import { holdsTerm } from "./leader.ts";
import { changeOp, type OpChange, wakeWatchers, writeOp } from "./ops.ts";
import { forgetPlaced, ownedBy, pendingOf, removeTenantsUnder, tombstone } from "./placements.ts";
import { changeRouting, lockFleet } from "./routing-change.ts";
import { overridesOf, requireStillSafe } from "./safety.ts";
import { agent, cell, fleet, tenant } from "./schema.ts";
import { applyStage } from "./stage-effect.ts";
import { askPurge, deletionsAwaiting, erase, isStorageRemoved, setKeyState } from "./tenant-end.ts";
import { revokeAgentTokens } from "./tokens.ts";

/** `raced`: somebody else acted, or the facts changed; look again. `deposed`: another leads. */
export type Applied = "applied" | "raced" | "deposed";

type GoTurn = Extract<OpTurn, { kind: "go" }>;
type Who = { readonly term: number; readonly nowMs: number };

async function allOrNothing(database: Database, work: (tx: Tx) => Promise<void>): Promise<Applied> {
  try {
    await database.transaction(work);
    return "applied";
  } catch (error) {
    if (error instanceof Abandoned) return error.why;
    throw error;
  }
}

export function applyTurn(
  database: Database,
  who: Who,
  op: OpView,
  turn: GoTurn,
): Promise<Applied> {
  return allOrNothing(database, async (tx) => {
    await requireTerm(tx, who.term);
    const done = await applyEffects(tx, turn.effects, op, who.nowMs);
    if (turn.state !== "running") await settleGoal(tx, op);
    const change = { ...changeOf(turn, who.nowMs), ...done };
    await requireVersion(tx, op, change, who.nowMs);
    await recordEvents(tx, eventsOf(op, turn));
  });
}

export type Decided = { readonly op: OpView; readonly turn: GoTurn };

/** Does the turn change nothing but its operation? Then many of them may share a transaction. */
export const isLight = ({ op, turn }: Decided): boolean =>
  turn.failure === undefined &&
  !op.kind.startsWith("cell.") &&
  turn.effects.every(({ kind }) => kind === "publish");

/**
 * Many light turns in one transaction: all of them, or none. A bulk of new tenants moves on in a few
 * round trips instead of a dozen each.
 */
export function applyLightTurns(
  database: Database,
  who: Who,
  decided: readonly Decided[],
): Promise<Applied> {
  return allOrNothing(database, async (tx) => {
    await requireTerm(tx, who.term);
    const { mode, revision } = await lockFleet(tx);
    // As in `applyEffects`.
    if (mode === "recovering") throw new Abandoned("raced");
    for (const { op, turn } of decided) {
      const published = turn.effects.length > 0 ? { revision } : {};
      const change = { ...changeOf(turn, who.nowMs), ...published };
      if (!(await writeOp(tx, op, change, who.nowMs))) throw new Abandoned("raced");
    }
    await wakeWatchers(
      tx,
      decided.map(({ op }) => op.id),
    );
    await recordEvents(
      tx,
      decided.flatMap(({ op, turn }) => eventsOf(op, turn)),
    );
  });
}

const changeOf = (turn: GoTurn, nowMs: number): OpChange => ({
  headline: turn.headline,
  step: turn.to,
  state: turn.state,
  deadlineAtMs: turn.deadlineMs === undefined ? null : nowMs + turn.deadlineMs,
  ...(turn.failure === undefined ? {} : { failure: turn.failure }),
});

/** A note about an operation that stays in its step: headline, provider's answer. */
export function applyNote(
  database: Database,
  who: Who,
  op: OpView,
  change: OpChange,
): Promise<Applied> {
  return allOrNothing(database, async (tx) => {
    await requireTerm(tx, who.term);
    await requireVersion(tx, op, change, who.nowMs);
  });
}

async function requireTerm(tx: Tx, term: number): Promise<void> {
  if (!(await holdsTerm(tx, term))) throw new Abandoned("deposed");
}

async function requireVersion(tx: Tx, op: OpView, change: OpChange, nowMs: number): Promise<void> {
  if (!(await changeOp(tx, op, change, nowMs))) throw new Abandoned("raced");
}

/** The revision that routers must acknowledge, when the turn publishes; and what came of the effects. */
async function applyEffects(
  tx: Tx,
  effects: readonly Effect[],
  op: OpView,
  nowMs: number,
): Promise<Pick<OpChange, "revision" | "result">> {
  if (effects.length > 0) {
    const { mode } = await lockFleet(tx);
    // A recovery began after the turn was decided: what it was decided on may not be true.
    if (mode === "recovering") throw new Abandoned("raced");
  }
  let done: Pick<OpChange, "revision" | "result"> = {};
  for (const effect of effects) {
    if (effect.kind === "publish") done = { ...done, revision: await currentRevision(tx) };
    else if (effect.kind === "erase") {
      done = { ...done, result: await erase(tx, effect.key, op, nowMs) };
    } else await applyEffect(tx, effect, op, nowMs);
  }
  return done;
}

function eventsOf(op: OpView, turn: GoTurn): NewEvent[] {
  const downs = turn.effects.flatMap((effect) =>
    effect.kind === "cell-down"
      ? [
          {
            kind: "cell.down",
            object: effect.cell,
            text: `${effect.cell} is down: ${effect.reason}`,
          },
        ]
      : [],
  );
  if (turn.state === "running") return downs;
  const text = `${op.kind}: ${turn.headline}`;
  return [...downs, { kind: `op.${turn.state}`, object: op.object, text }];
}

async function currentRevision(tx: Tx): Promise<number> {
  const [row] = await tx.select({ revision: fleet.revision }).from(fleet);
  return must(row, "fleet row").revision;
}

/** Throws CellError when a rule forbids it now. */
async function applyEffect(
  tx: Tx,
  effect: Exclude<Effect, { kind: "publish" | "erase" }>,
  op: OpView,
  nowMs: number,
): Promise<void> {
  switch (effect.kind) {
    case "withdraw":
      return withdraw(tx, op);
    case "cell-down":
      return markDown(tx, effect.cell, effect.reason);
    case "retire-cell":
      return retire(tx, effect.cell, op, nowMs);
    case "cell-state":
      return setCellState(tx, effect, op);
    case "stage":
      return applyStage(tx, effect);
    case "key-state":
      return setKeyState(tx, effect);
    case "ask-purge":
      return askPurge(tx, effect.key, op);
    default:
      return unreachable(effect);
  }
}

async function markDown(tx: Tx, cellId: string, reason: string): Promise<void> {
  await tx
    .update(cell)
    .set({ health: "down", healthReason: recordable(reason) })
    .where(eq(cell.id, cellId));
}

async function setCellState(
  tx: Tx,
  effect: Extract<Effect, { kind: "cell-state" }>,
  op: OpView,
): Promise<void> {
  const cells = await readCells(tx);
  const now = cells.find(({ id }) => id === effect.cell);
  if (now === undefined || !effect.from.includes(now.state)) {
    throw new CellError(
      "STATE_CONFLICT",
      `${effect.cell} is ${now?.state ?? "gone"}; it was to become ${effect.to}.`,
    );
  }
  assert(mayBecome(now.state, effect.to), `${now.state} may become ${effect.to}`);
  const adoption = effect.to === "active" ? checkAdoption(now) : undefined;
  if (adoption !== undefined) throw adoptionGoesOn(now, adoption);
  if (effect.to === "cordoned") {
    const refusal = checkSafety("cordon", now, cells);
    if (refusal !== undefined) throw new CellError("SAFETY_RULE", refusal.text);
    const operation = { kind: "cell.cordon", cell: now.id, id: op.id } as const;
    await requireStillSafe(tx, operation, overridesOf(op.input));
  }
  if (now.state === "provisioning") await changeRouting(tx, { config: true });
  const set = { state: effect.to, goal: effect.to };
  await tx.update(cell).set(set).where(eq(cell.id, effect.cell));
}

async function retire(tx: Tx, cellId: string, op: OpView, nowMs: number): Promise<void> {
  const cells = await readCells(tx);
  const now = cells.find(({ id }) => id === cellId);
  if (now?.state === "retired") return;
  if (now === undefined) throw new CellError("CELL_UNKNOWN", `There is no cell ${cellId}.`);
  const owned = await ownedBy(tx, cellId);
  const deletions = await deletionsAwaiting(tx, cellId);
  const refusal =
    checkOwnsNothing(now, owned, isStorageRemoved(op.input)) ??
    checkOwesNothing(now, deletions, isStorageRemoved(op.input)) ??
    checkSafety("destroy", now, cells);
  if (refusal !== undefined) throw new CellError("SAFETY_RULE", refusal.text);
  const operation = { kind: "cell.destroy", cell: cellId, id: op.id } as const;
  await requireStillSafe(tx, operation, overridesOf(op.input));
  const revision = await changeRouting(tx, { config: true });
  await forgetPlaced(tx, cellId, revision);
  const retired: CellState = "retired";
  await tx
    .update(cell)
    .set({ state: retired, goal: retired, health: "unknown", healthReason: "the cell is retired" })
    .where(eq(cell.id, cellId));
  await tx.delete(agent).where(eq(agent.cell, cellId));
  await revokeAgentTokens(tx, cellId, new Date(nowMs));
}

/** Takes back what no cell has applied. Once a cell has, the operation is past its point of no return. */
async function withdraw(tx: Tx, op: OpView): Promise<void> {
  const rows = await pendingOf(tx, op.id);
  if (rows.length === 0) throw new Abandoned("raced");
  const revision = await changeRouting(tx, { config: false });
  const keys = rows.map(({ key }) => key);
  await tombstone(tx, keys, { revision, op: op.id, attempt: op.attempt + 1 });
  if (op.kind === "override.create") {
    await tx
      .update(tenant)
      .set({ placementKey: String(op.input["container"]) })
      .where(inArray(tenant.placementKey, keys));
  } else {
    await removeTenantsUnder(tx, rows);
  }
}

/** An operation that is over wants nothing any more. */
async function settleGoal(tx: Tx, op: OpView): Promise<void> {
  if (!op.kind.startsWith("cell.") || op.kind === "cell.create") return;
  await tx
    .update(cell)
    .set({ goal: sql`${cell.state}` })
    .where(eq(cell.id, op.object));
}
