/** From tenants, keys and labels to placements; whoever is asked for and is not there is named. */
import { CellError } from "../../contract/errors.ts";
import type { Tx } from "../store/database.ts";
import {
  type FoundTenant,
  placementsByKey,
  tenantsById,
  tenantsLabelled,
} from "../store/moves/candidates.ts";
import type { PlacementRow } from "../store/placements.ts";
import { tenantUnknown } from "../store/tenants.ts";
import type { Selection } from "./moves-select.ts";

/** Tenants that a selector may mean. */
const tenantsMax = 10_000;

export async function chosenPlacements(tx: Tx, asked: Selection): Promise<PlacementRow[]> {
  const { tenants = [], keys = [], selector } = asked;
  if (tenants.length === 0 && keys.length === 0 && selector === undefined) {
    throw new CellError("VALIDATION_FAILED", "Nothing is selected: name tenants, keys or labels.", {
      nextSteps: [
        "cellctl move plan TENANT --to CELL",
        "cellctl move plan --selector tier=gold --to CELL",
      ],
    });
  }
  const rows = [
    ...(await byId(tx, tenants, asked.keyspace)),
    ...(selector === undefined ? [] : await byLabel(tx, selector, asked)),
    ...(await byKey(tx, keys)),
  ];
  return [...new Map(rows.map((row) => [row.key, row])).values()];
}

async function byId(
  tx: Tx,
  ids: readonly string[],
  keyspace: string | undefined,
): Promise<PlacementRow[]> {
  if (ids.length === 0) return [];
  const found = await tenantsById(tx, ids, keyspace);
  const known = new Set(found.map(({ id }) => id));
  const missing = ids.find((id) => !known.has(id));
  if (missing !== undefined) throw await tenantUnknown(tx, missing);
  return ownPlacements(found);
}

async function byLabel(tx: Tx, selector: string, asked: Selection): Promise<PlacementRow[]> {
  const found = await tenantsLabelled(tx, {
    labels: parseSelector(selector),
    keyspace: asked.keyspace,
    from: asked.from,
    limit: tenantsMax + 1,
  });
  if (found.length === 0) {
    throw new CellError("NOT_FOUND", `No tenant matches ${selector}.`, {
      nextSteps: [`cellctl tenant ls --label ${selector.split(",")[0]}`],
    });
  }
  if (found.length > tenantsMax) {
    throw new CellError("VALIDATION_FAILED", `${selector} means more than ${tenantsMax} tenants.`);
  }
  return ownPlacements(found);
}

/** `tier=gold,team=a`. */
function parseSelector(raw: string): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  for (const part of raw.split(",")) {
    const at = part.indexOf("=");
    const name = part.slice(0, Math.max(0, at)).trim();
    if (name === "" || labels.has(name)) {
      throw new CellError(
        "VALIDATION_FAILED",
        `selector "${raw}": must be NAME=VALUE, or several of them with commas between, each name once.`,
      );
    }
    labels.set(name, part.slice(at + 1).trim());
  }
  return labels;
}

/** Only who has a placement of its own can be moved alone. */
function ownPlacements(found: readonly FoundTenant[]): PlacementRow[] {
  const under = found.find(({ placement }) => placement.kind !== "tenant");
  if (under === undefined) return found.map(({ placement }) => placement);
  const { id, placement } = under;
  const { key, keyspace, cell } = placement;
  throw new CellError(
    "STATE_CONFLICT",
    `${id} is served under ${key}, together with others: move all of them, or give it a placement of its own first.`,
    {
      details: { tenant: id, container: key, cell },
      nextSteps: [
        `cellctl move plan --key ${key} --to CELL`,
        `cellctl route override add ${id} --keyspace ${keyspace} --cell ${cell}   (then move it)`,
      ],
    },
  );
}

async function byKey(tx: Tx, keys: readonly string[]): Promise<PlacementRow[]> {
  const rows = await placementsByKey(tx, keys);
  const known = new Set(rows.map(({ key }) => key));
  const missing = keys.find((key) => !known.has(key));
  if (missing === undefined) return rows;
  throw new CellError("NOT_FOUND", `Nothing is placed under ${missing}.`, {
    details: { key: missing },
    nextSteps: ["cellctl keyspace ls", "cellctl route override ls"],
  });
}
