/**
 * A placement as people see it around a failover: an annex is named by its host, and a key that nobody
 * serves says why, and what can be done.
 */
import { desc, eq, sql } from "drizzle-orm";
import { parsePlacementKey } from "../../../contract/placement-key.ts";
import { nextForFailover } from "../../core/failover/failover-actions.ts";
import { parseFailoverStep } from "../../core/failover/failover-state.ts";
import type { Reader } from "../database.ts";
import { cell } from "../schema.ts";
import { failover, failoverKey } from "../schema-standby.ts";
import { openFailoverOf, openFailovers } from "./read.ts";
import { cellsGoneOnFrom } from "./stranded.ts";

export type Unserved = { readonly reason: string; readonly next_steps: string[] };
export type ShownOwner = {
  /** A cell of its own: of an annex its host. */
  readonly cell: string;
  readonly annex?: string;
  readonly unserved?: Unserved;
};

export async function shownOwner(
  reader: Reader,
  placed: { readonly key: string; readonly cell: string; readonly state: string },
): Promise<ShownOwner> {
  const [row] = await reader
    .select({ host: cell.annexHost, health: cell.health, reason: cell.healthReason })
    .from(cell)
    .where(eq(cell.id, placed.cell));
  const host = row?.host ?? null;
  const owner = host === null ? { cell: placed.cell } : { cell: host, annex: placed.cell };
  const unserved = await whyUnserved(reader, placed, {
    ...{ id: owner.cell, isDown: row?.health === "down", reason: row?.reason ?? "" },
  });
  return unserved === undefined ? owner : { ...owner, unserved };
}

async function whyUnserved(
  reader: Reader,
  {
    key,
    state,
    cell: placedIn,
  }: { readonly key: string; readonly cell: string; readonly state: string },
  owner: { readonly id: string; readonly isDown: boolean; readonly reason: string },
): Promise<Unserved | undefined> {
  if (state === "unavailable") {
    return (
      (await keptBack(reader, key)) ??
      (await fateOf(reader, key, placedIn)) ?? {
        reason: "nobody may serve it",
        next_steps: ["cellctl status"],
      }
    );
  }
  if ((await cellsGoneOnFrom(reader)).includes(placedIn)) {
    return {
      reason: `${placedIn} was failed over and has the only copy; a live move brings it into a whole cell`,
      next_steps: [`cellctl move ls --cell ${placedIn}`],
    };
  }
  const open = await openFailoverOf(reader, placedIn);
  if (open !== undefined) {
    const step = parseFailoverStep(open.op.step) ?? "failed";
    // Live moves serve on.
    if (open.failover.mode === "planned") return undefined;
    return {
      reason: `${placedIn} is being failed over (${step}): ${open.op.headline}`,
      next_steps: [...nextForFailover({ id: open.failover.op, cell: placedIn, step }, true)],
    };
  }
  if (!owner.isDown) return undefined;
  return {
    reason: `${owner.id} is down (${owner.reason}), and nobody has taken it over`,
    next_steps: [`cellctl failover plan ${owner.id}`, `cellctl cell start ${owner.id}`],
  };
}

/** A recovery has left it open whose it is: somebody who may own it has not been heard. */
async function keptBack(reader: Reader, key: string): Promise<Unserved | undefined> {
  const { rows } = await reader.execute<{ cell: string }>(sql`
    select distinct coalesce(c.annex_host, c.id) as cell
      from cellfleet_control.placement as p
      join cellfleet_control.op as o on o.id = p.op and o.kind = 'fleet.recover'
      join cellfleet_control.recovery_cell as r on r.state = 'frozen'
      join cellfleet_control.cell as c on c.id = r.cell
     where p.key = ${key} order by 1`);
  const cells = rows.map(({ cell: id }) => id);
  if (cells.length === 0) return undefined;
  return {
    reason: `the control plane was restored, and ${cells.join(", ")} may own it since the backup and has not been heard`,
    next_steps: [
      "cellctl recovery show",
      ...cells.flatMap((id) => [
        `cellctl cell start ${id}`,
        `cellctl recovery give-up ${id} --reason "…"`,
      ]),
    ],
  };
}

/** What the last failover that touched the key came to. */
async function fateOf(
  reader: Reader,
  key: string,
  placedIn: string,
): Promise<Unserved | undefined> {
  const [last] = await reader
    .select({
      ...{ id: failover.op, cell: failover.cell },
      ...{ fate: failoverKey.fate, reason: failoverKey.reason },
    })
    .from(failoverKey)
    .innerJoin(failover, eq(failover.op, failoverKey.failover))
    .where(eq(failoverKey.key, key))
    .orderBy(desc(failoverKey.at))
    .limit(1);
  if (last === undefined) return undefined;
  const { id, cell: dead, fate, reason } = last;
  const why = `${fate} since the failover ${id} of ${dead}${reason === "" ? "" : `: ${reason}`}`;
  if (placedIn !== dead) return { reason: why, next_steps: releasing(id, key) };
  const [row] = await reader.select({ health: cell.health }).from(cell).where(eq(cell.id, dead));
  return { reason: why, next_steps: goingOn(id, dead, row?.health === "down") };
}

/** Its rows are where they were, in the cell that died: that has to be there before they can be used. */
const goingOn = (id: string, dead: string, isDown: boolean): string[] => [
  ...(isDown ? [`cellctl cell start ${dead}`] : []),
  `cellctl cell salvage ${dead} adopt`,
  `cellctl failover report ${id}`,
];

/** It was adopted, and is suspected: whoever finds it innocent lets it be served again. */
function releasing(id: string, key: string): string[] {
  const parts = parsePlacementKey(key);
  const status = `cellctl failover status ${id}`;
  if (parts?.kind !== "tenant") return [status];
  return [
    status,
    `cellctl tenant suspend ${parts.tenant}`,
    `cellctl tenant resume ${parts.tenant}`,
  ];
}

export type CellFailover = {
  readonly id: string;
  readonly step: string;
  readonly mode: "planned" | "unplanned";
};

/** Of cells that are failed over now, by cell. */
export async function failoversByCell(reader: Reader): Promise<ReadonlyMap<string, CellFailover>> {
  const open = await openFailovers(reader);
  return new Map(
    open.map(({ op, failover: own }) => [own.cell, { id: own.op, step: op.step, mode: own.mode }]),
  );
}
