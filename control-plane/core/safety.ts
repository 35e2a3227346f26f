/**
 * Safety rules: checked when an operation is planned, and again under the lock when it takes effect,
 * because the fleet may have changed in between (promise 9).
 */
import type { CellAction } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import type { CellView } from "./fleet.ts";

/** So many other cells must stay healthy when one is taken from service. */
export const healthyCellsMin = 1;
/** So many other cells must stay open for placement when one is closed. */
export const openCellsMin = 1;

export type Refusal = { readonly rule: string; readonly text: string };

/** In pass-through a cell is served as it was before it was adopted: nobody depends on our part of it. */
const serving = (cell: CellView): boolean =>
  cell.annex === null &&
  cell.stage.now !== "pass-through" &&
  cell.health === "healthy" &&
  cell.state !== "retired" &&
  cell.state !== "provisioning";

/**
 * Cells that operations are about to take from service, though they still look healthy. `before` is an
 * operation's own id: of two that would each leave the other as the last, the one recorded first goes on.
 */
export function leavingCells(
  ops: ReadonlyArray<{ readonly id: string; readonly kind: string; readonly object: string }>,
  before?: string,
): ReadonlySet<string> {
  const halting = ops.filter(
    ({ id, kind }) =>
      (kind === "cell.kill" || kind === "cell.stop" || kind === "cell.destroy") &&
      (before === undefined || id < before),
  );
  return new Set(halting.map(({ object }) => object));
}

export function checkSafety(
  action: CellAction,
  cell: CellView,
  cells: readonly CellView[],
  leaving: ReadonlySet<string> = new Set(),
): Refusal | undefined {
  const others = cells.filter(({ id }) => id !== cell.id && !leaving.has(id));
  if (action === "kill" || action === "stop" || (action === "destroy" && cell.state === "active")) {
    const healthy = others.filter(serving).length;
    // A cell that is down already loses nothing by being taken down once more.
    if (serving(cell) && healthy < healthyCellsMin) {
      return {
        rule: "healthy-cells",
        text: `${cell.id} is the last healthy cell: ${healthy} others are, and ${healthyCellsMin} must stay.`,
      };
    }
  }
  if (action === "cordon") {
    const open = others.filter(({ state, annex }) => state === "active" && annex === null).length;
    if (open < openCellsMin) {
      return {
        rule: "open-cells",
        text: `${cell.id} is the last cell open for placement: ${open} others are, and ${openCellsMin} must stay.`,
      };
    }
  }
  return undefined;
}

/**
 * A cell is destroyed only when nothing would be lost with it. The way back of an adoption loses
 * nothing: in pass-through the placements are our books alone, and its database is not touched. A
 * database that still enforces would refuse its application everything as soon as no agent may lead it;
 * `released`: somebody says that nothing of ours is left there.
 */
export function checkOwnsNothing(
  cell: Pick<CellView, "id" | "stage">,
  owned: { readonly keys: number; readonly tenants: number },
  released = false,
): Refusal | undefined {
  const { keys, tenants } = owned;
  const { id, stage } = cell;
  if (!released && stage.now === "pass-through" && stage.applied === "enforce") {
    return {
      rule: "database-enforces",
      text: `The routers treat ${id} as pass-through, but its database is still in enforce, as its agent said last: destroyed now, it would refuse its application every write for good.`,
    };
  }
  return (keys === 0 && tenants === 0) || stage.now === "pass-through"
    ? undefined
    : {
        rule: "owns-nothing",
        text: `${id} still owns ${keys} placements and ${tenants} tenants; only an empty cell is destroyed.`,
      };
}

/**
 * While a cell is being adopted nothing is refused anywhere: a second cell with tenants could be
 * written in the wrong place. `cell`: the one that is to take tenants.
 */
export function checkAdoption(cell: Pick<CellView, "id" | "adopting">): Refusal | undefined {
  return cell.adopting === null || cell.adopting === cell.id
    ? undefined
    : {
        rule: "one-adopted-cell",
        text: `${cell.adopting} is being adopted and does not enforce yet; until it does, no other cell takes tenants.`,
      };
}

export const adoptionGoesOn = (
  cell: Pick<CellView, "adopting">,
  { rule, text }: Refusal,
): CellError =>
  new CellError("SAFETY_RULE", text, {
    details: { rule },
    nextSteps: [
      `cellctl cell get ${cell.adopting}   (its stage, and what would be refused)`,
      `cellctl cell stage ${cell.adopting} enforce`,
    ],
  });
