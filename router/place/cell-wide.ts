/** Where requests go that speak of no tenant: routes of the classes global, public and any-cell. */
import { CellError } from "../../contract/errors.ts";
import { must } from "../../runtime/assert.ts";
import type { Random } from "../../runtime/random.ts";
import { globalTarget } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import {
  type ChosenRoute,
  decideAnyCell,
  decideGlobal,
  decidePublic,
  type Placed,
  type RoutingView,
} from "./decide.ts";

export type PlacingCellWide = {
  readonly view: () => RoutingView | undefined;
  readonly random: Random;
  /** Is there an endpoint among them that is not known to be down? */
  readonly isUsable: (endpoints: readonly string[]) => boolean;
};

/** Throws what the table refuses. */
export function placeCellWide(
  { view: current, random, isUsable }: PlacingCellWide,
  route: ChosenRoute,
  record: RequestRecord,
): Placed {
  const view = current();
  if (view === undefined) throw new CellError("TABLE_NOT_LOADED", "There is no table.");
  record.revision = view.table.revision;
  const decision = decideFor(view, route, random, isUsable);
  if (decision.kind === "refuse") throw new CellError(decision.code, decision.message);
  if (decision.cell === undefined) record.target = globalTarget;
  record.cell = decision.shown;
  return decision;
}

function decideFor(
  view: RoutingView,
  { class: routeClass, service, cell }: ChosenRoute,
  random: Random,
  isUsable: PlacingCellWide["isUsable"],
) {
  if (routeClass === "global") return decideGlobal(view, service);
  if (routeClass === "any-cell") return decideAnyCell(view, service, random.unit(), isUsable);
  return decidePublic(view, must(cell, "cell of a public route"), service);
}
