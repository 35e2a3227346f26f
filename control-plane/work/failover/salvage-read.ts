/**
 * Reads what a returned cell holds and its partners never saw, and compares each row with what the tenant's
 * home has. Changes nothing anywhere but in our own books: the slots of the cell stay where they are, so
 * that it may be read again.
 */
import { CellError } from "../../../contract/errors.ts";
import type { SeveredAt } from "../../../standby/ports.ts";
import { effectOf, type LostChange } from "../../core/failover/salvage.ts";
import { type OwnedKeys, wasOwned } from "../../core/failover/salvage-owned.ts";
import {
  requireFailoverRow,
  type StandbyRow,
  severedAt,
  severedOf,
} from "../../store/failover/report.ts";
import {
  dropGone,
  forgetRows,
  identityOf,
  judgeRow,
  pageOfRows,
  recordChange,
  rowOf,
  type SalvageRecord,
} from "../../store/failover/salvage.ts";
import { readOwned } from "../../store/failover/salvage-owned.ts";
import { readAdopted } from "../../store/failover/wave.ts";
import { buildPair } from "../standby/pair.ts";
import { judgeThere } from "./salvage-rows.ts";
import { type Homes, openHomes, type SalvageWorld } from "./salvage-world.ts";

const pageRows = 500;

/** How many rows it found. Throws CELL_DATABASE_UNREACHABLE, SALVAGE_UNFIT. */
export async function readSalvaged(
  world: SalvageWorld,
  about: { readonly id: string; readonly failover: string },
  signal: AbortSignal,
): Promise<number> {
  const { database } = world;
  const row = await requireFailoverRow(database.read, about.failover);
  const standbys = await severedOf(database.read, row);
  const owned = await readOwned(database.read, { cell: row.cell, failover: row.op });
  await forgetRows(database, about.id);
  let found = 0;
  for (const one of standbys) {
    const severed = severedAt(row, one);
    if (severed === undefined) continue;
    found += 1;
    await readPair(world, { id: about.id, row: one, severed, owned }, signal);
  }
  if (found === 0 && (await readAdopted(database.read, row.op)).length > 0) {
    throw new CellError(
      "SALVAGE_UNFIT",
      `${about.failover} cut no stream of ${row.cell}: nobody knows what is missing elsewhere.`,
      {
        nextSteps: [`cellctl failover report ${about.failover}`],
      },
    );
  }
  await dropGone(database, about.id);
  return judgeAll(world, about.id, signal);
}

async function readPair(
  { database, resolve, standby }: SalvageWorld,
  about: {
    readonly id: string;
    readonly row: StandbyRow;
    readonly severed: SeveredAt;
    readonly owned: OwnedKeys;
  },
  signal: AbortSignal,
): Promise<void> {
  const { id, row, severed, owned } = about;
  const buckets = { lo: row.bucketLo, hi: row.bucketHi };
  const { annex, origin, host, provider } = row;
  // Emptied and removed, as soon as its tenants were moved on: its positions were kept.
  const pair = await buildPair(
    database.read,
    resolve,
    { annex, origin, host, provider, buckets },
    "may-be-gone",
  );
  const record = async (change: LostChange) => {
    if (wasOwned(owned, change)) await recordChange(database, id, row.annex, change);
  };
  await standby.salvage(pair, severed, record, signal);
}

/** How many rows there are. What was decided about them stays. */
export async function judgeAll(
  world: SalvageWorld,
  id: string,
  signal: AbortSignal,
): Promise<number> {
  const homes = openHomes(world);
  let rows = 0;
  try {
    for (let after = 0; ; ) {
      signal.throwIfAborted();
      const page = await pageOfRows(world.database.read, id, { after, limit: pageRows });
      for (const record of page) await judgeOne(world, homes, record);
      rows += page.length;
      const last = page.at(-1);
      if (last === undefined) return rows;
      after = last.id;
    }
  } finally {
    await homes.close();
  }
}

async function judgeOne(world: SalvageWorld, homes: Homes, record: SalvageRecord): Promise<void> {
  const home = await homes.of({ ...record, table: record.tableName });
  if (typeof home === "string") {
    const nobody = { key: "", verdict: "homeless", theirs: undefined, note: home } as const;
    await judgeRow(world.database, record.id, nobody);
    return;
  }
  const wanted = wantedOf(record);
  const { verdict, theirs } = await judgeThere(home.client, home.shape, wanted);
  await judgeRow(world.database, record.id, { key: home.key, verdict, theirs, note: "" });
}

export const wantedOf = (record: SalvageRecord) => ({
  kind: effectOf(record.first, record.last) ?? ("delete" as const),
  identity: identityOf(record),
  row: rowOf(record),
});
