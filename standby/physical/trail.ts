/**
 * The trail of a physical standby at its origin: publication and slot in each store, moved along behind
 * what the standby has applied, so that an origin that returns can tell, change by change, what never
 * arrived. Nobody follows it while all is well.
 *
 * What must always be true: the slot's place is never ahead of what the standby has applied when it is
 * cut, or the changes in between would be told by nobody; the publication stands before the slot, for
 * PostgreSQL reads the log with the catalog as it was.
 */
import { z } from "zod";
import { type Queryable, sqlStateOf } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import { endSessions, makeSlot } from "../../moving/copy-slot.ts";
import type { StoreLogin } from "../../moving/ports.ts";
import {
  dropPublication,
  dropSlot,
  hasPublication,
  hasUsableSlot,
} from "../../moving/streams-objects.ts";
import type { MakeLimits } from "../ensure.ts";
import { standbyErrorOf, withKeeper } from "../keeper.ts";
import { makerName, streamName } from "../names.ts";
import type { BucketRange, StandbyPair } from "../ports.ts";
import { addTables, makePublication } from "../stream.ts";
import { planTables, readSideTables, type SideTable, type TablePlan } from "../tables.ts";
import type { StandbyStore } from "./server.ts";

/** A whole server has no part of the buckets. */
const allBuckets: BucketRange = { lo: 0, hi: 255 };
/** In one step: decoding it takes a fraction of what a look may take. */
const stepBytes = 16 * 1024 * 1024;
/** Not for every record: what lies between is passed over by who reads the trail. */
const worthBytes = 256 * 1024;

/** Tables that replication could not follow have no trail: a publication would refuse their updates. */
const planOf = (tables: readonly SideTable[], { keyspaces }: StandbyPair): TablePlan =>
  planTables({ origin: tables, annex: tables }, keyspaces, allBuckets);

/** May be repeated; brings in tables that came since. */
export async function layTrail(
  pair: StandbyPair,
  { name: store, origin }: StandbyStore,
  { clock, slotWaitMsMax }: MakeLimits,
): Promise<void> {
  const name = streamName(pair.annex, store);
  const isLaid = await withKeeper(origin, { name: makerName(name) }, async (client) => {
    await endSessions(client, makerName(name), clock);
    const { carried } = planOf(await readSideTables(client, name), pair);
    if (await hasPublication(client, name)) {
      await addTables(
        client,
        name,
        carried.filter(({ published }) => published === "no"),
      );
    } else {
      await dropSlot(client, name, clock);
      await makePublication(client, name, carried);
    }
    if (await hasUsableSlot(client, name)) return true;
    await dropSlot(client, name, clock);
    return false;
  });
  if (isLaid) return;
  try {
    await makeSlot(origin, name, slotWaitMsMax);
  } catch (error) {
    throw standbyErrorOf(origin, error);
  }
}

const trailSchema = z.object({
  lost: z.boolean(),
  /** Has the standby come to where the trail begins? */
  reached: z.boolean(),
  /** To where it may be moved on; null: it is not worth it. */
  next: z.string().nullable(),
});
export type Trail = z.infer<typeof trailSchema> & { readonly uncovered: readonly string[] };

/** Undefined: there is none. `applied`: how far the standby is. */
export async function readTrail(
  client: Queryable,
  pair: StandbyPair,
  store: string,
  applied: string,
): Promise<Trail | undefined> {
  const name = streamName(pair.annex, store);
  const { rows } = await client.query<{ trail: unknown }>(
    `select jsonb_build_object(
              'lost', s.wal_status = 'lost' or to_jsonb(s) ->> 'invalidation_reason' is not null,
              'reached', s.confirmed_flush_lsn <= $2::pg_lsn,
              'next', case when pg_wal_lsn_diff($2::pg_lsn, s.confirmed_flush_lsn) > ${worthBytes}
                           then least($2::pg_lsn, s.confirmed_flush_lsn + ${stepBytes}) end) as trail
       from pg_replication_slots s
       join pg_publication p on p.pubname = s.slot_name
      where s.slot_name = $1 and s.database = current_database() and s.confirmed_flush_lsn is not null`,
    [name, applied],
  );
  if (rows[0] === undefined) return undefined;
  const { carried } = planOf(await readSideTables(client, name), pair);
  const late = carried.filter(({ published }) => published === "no");
  return {
    ...trailSchema.parse(rows[0].trail),
    uncovered: late.map(({ label }) => `${label} (it came after the stream began)`),
  };
}

export async function moveTrail(
  client: Queryable,
  pair: StandbyPair,
  store: string,
  { next }: Trail,
): Promise<void> {
  if (next === null) return;
  try {
    await client.query("select pg_replication_slot_advance($1, $2)", [
      streamName(pair.annex, store),
      next,
    ]);
  } catch (error) {
    // Somebody reads it, or moves it on already.
    if (sqlStateOf(error) !== "55006") throw error;
  }
}

/** A trail that begins behind the cut would be read as if nothing were missing before it. */
export async function requireWholeTrail(
  pair: StandbyPair,
  { name: store, origin }: StandbyStore,
  remoteLsn: string | null,
): Promise<void> {
  const name = streamName(pair.annex, store);
  const begins = await withKeeper(origin, { name: `${name} salvage look` }, async (client) => {
    const { rows } = await client.query<{ place: string }>(
      `select confirmed_flush_lsn::text as place from pg_replication_slots
        where slot_name = $1 and database = current_database()
          and ($2::pg_lsn is null or confirmed_flush_lsn > $2::pg_lsn)`,
      [name, remoteLsn],
    );
    return rows[0]?.place;
  });
  if (begins === undefined) return;
  throw new CellError(
    "SALVAGE_UNFIT",
    `Store ${store} of cell ${origin.cell} cannot tell what its standby lacks: its slot ${name} begins at ${begins}, and the standby was cut at ${remoteLsn ?? "no known place"}`,
    { nextSteps: [`look into the database of ${origin.cell} by hand before it is wiped`] },
  );
}

export async function takeTrailUp(
  pair: StandbyPair,
  { name: store, origin }: { readonly name: string; readonly origin: StoreLogin },
  clock: MakeLimits["clock"],
): Promise<void> {
  const name = streamName(pair.annex, store);
  await withKeeper(origin, { name: `${name} drop` }, async (client) => {
    await endSessions(client, makerName(name), clock);
    await dropSlot(client, name, clock);
    await dropPublication(client, name);
  });
}
