/**
 * Names of tenants as rows. Who gets a name is decided by the unique index `claim_exclusive`, not by
 * whoever looked first; the statement that reserves also frees what ran out, so a reservation ends at
 * its time and not when somebody tidies up. Only hashes come here.
 *
 * A row that routers were ever told of stays as a tombstone when it is released: what changed since a
 * revision is one index scan, as for placements.
 */
import { and, eq, ne, or, sql } from "drizzle-orm";
import { type Claim, claimSchema } from "../../contract/claims-api.ts";
import { CellError } from "../../contract/errors.ts";
import { must } from "../../runtime/assert.ts";
import { isoTime } from "../../runtime/clock.ts";
import { claimText } from "../core/claims.ts";
import { type Reader, sqlStateOf, type Tx } from "./database.ts";
import { claim } from "./schema-adoption.ts";

/** Which name, and whose. */
export type ClaimKey = {
  readonly namespace: string;
  readonly hash: string;
  readonly keyspace: string;
  readonly tenant: string;
};

const columns = {
  namespace: claim.namespace,
  hash: claim.hash,
  keyspace: claim.keyspace,
  tenant: claim.tenant,
  state: claim.state,
  reservation: claim.reservation,
  expiresAt: claim.expiresAt,
  revision: claim.revision,
  createdAt: claim.createdAt,
  expired:
    sql<boolean>`(${claim.state} = 'reserved' and ${claim.expiresAt} <= clock_timestamp())`.as(
      "expired",
    ),
};
export type ClaimRow = Omit<typeof claim.$inferSelect, "exclusive"> & {
  /** A reservation whose time is over: nobody's. */
  readonly expired: boolean;
};

const held = or(
  eq(claim.state, "committed"),
  and(eq(claim.state, "reserved"), sql`${claim.expiresAt} > clock_timestamp()`),
);
const ofName = (namespace: string, hash: string) =>
  and(eq(claim.namespace, namespace), eq(claim.hash, hash));
const ofKey = (key: ClaimKey) =>
  and(
    ofName(key.namespace, key.hash),
    eq(claim.keyspace, key.keyspace),
    eq(claim.tenant, key.tenant),
  );

export type Reservation = {
  /** Of a namespace where a name is one tenant's. */
  readonly exclusive: boolean;
  readonly ttlSeconds: number;
  /** The id it gets, if the tenant has none for this name yet. */
  readonly id: string;
};

const uniqueViolation = "23505";

/**
 * The row of this tenant, reserved now or before, or committed before; undefined when the name is
 * another tenant's. Of calls that run at the same time one wins, with or without the fleet's lock.
 */
export async function reserveClaim(
  tx: Tx,
  key: ClaimKey,
  wanted: Reservation,
): Promise<ClaimRow | undefined> {
  try {
    // A savepoint: the refusal of the index must not end the caller's transaction.
    await tx.transaction((inner) => writeReservation(inner, key, wanted));
  } catch (error) {
    if (sqlStateOf(error) === uniqueViolation) return undefined;
    throw error;
  }
  return must(await findClaim(tx, key), "reserved claim");
}

async function writeReservation(tx: Tx, key: ClaimKey, wanted: Reservation): Promise<void> {
  const { namespace, hash, keyspace, tenant } = key;
  await tx.execute(sql`
    with freed as (
      update cellfleet_control.claim set state = 'released', reservation = null, expires_at = null
       where namespace = ${namespace} and hash = ${hash} and state = 'reserved'
         and expires_at <= clock_timestamp()
         and not (keyspace = ${keyspace} and tenant = ${tenant})
      returning 1
    )
    insert into cellfleet_control.claim as c
      (namespace, hash, keyspace, tenant, state, exclusive, reservation, expires_at)
    -- Reading from freed makes it run before the insert.
    select ${namespace}, ${hash}, ${keyspace}, ${tenant}, 'reserved', ${wanted.exclusive}::boolean,
           ${wanted.id}, clock_timestamp() + make_interval(secs => ${wanted.ttlSeconds}::float8)
      from (select count(*) from freed) as done
    on conflict (namespace, hash, keyspace, tenant) do update set
      state = case c.state when 'committed' then 'committed' else 'reserved' end,
      reservation = case
        when c.state = 'committed' or (c.state = 'reserved' and c.expires_at > clock_timestamp())
        then coalesce(c.reservation, excluded.reservation) else excluded.reservation end,
      expires_at = case
        when c.state = 'committed' then null
        when c.state = 'reserved' then greatest(c.expires_at, excluded.expires_at)
        else excluded.expires_at end,
      created_at = case c.state when 'released' then excluded.created_at else c.created_at end`);
}

export async function findClaim(reader: Reader, key: ClaimKey): Promise<ClaimRow | undefined> {
  const [row] = await reader.select(columns).from(claim).where(ofKey(key));
  return row;
}

/** Locked until the end of the transaction. */
export async function lockClaim(tx: Tx, key: ClaimKey): Promise<ClaimRow | undefined> {
  const [row] = await tx.select(columns).from(claim).where(ofKey(key)).for("update");
  return row;
}

/** The same by the id of a reservation, which begins with namespace and hash. */
export async function lockReservation(tx: Tx, id: string): Promise<ClaimRow | undefined> {
  const [namespace = "", hash = ""] = id.split(".");
  const [row] = await tx
    .select(columns)
    .from(claim)
    .where(and(ofName(namespace, hash), eq(claim.reservation, id)))
    .for("update");
  return row;
}

/** `revision`: null in a namespace that routers are not told of. */
export async function commitClaim(
  tx: Tx,
  key: ClaimKey,
  revision: number | null,
): Promise<ClaimRow> {
  await tx.update(claim).set({ state: "committed", expiresAt: null, revision }).where(ofKey(key));
  return must(await findClaim(tx, key), "committed claim");
}

/** `revision`: null when routers never heard of it, or have been told that it is gone. */
export async function releaseClaim(
  tx: Tx,
  key: ClaimKey,
  revision: number | null,
): Promise<ClaimRow> {
  const change = revision === null ? {} : { revision };
  await tx
    .update(claim)
    .set({ state: "released", reservation: null, expiresAt: null, ...change })
    .where(ofKey(key));
  return must(await findClaim(tx, key), "released claim");
}

/**
 * All names of a tenant, when it is deleted; how many there were. `revision` is the one that the
 * caller's transaction got from `changeRouting`: routers forget the names with it.
 */
export async function releaseClaimsOf(
  tx: Tx,
  keyspace: string,
  tenant: string,
  revision: number,
): Promise<number> {
  const rows = await tx
    .update(claim)
    .set({
      state: "released",
      reservation: null,
      expiresAt: null,
      revision: sql`case when ${claim.state} = 'committed' and ${claim.revision} is not null
                         then ${revision}::bigint else ${claim.revision} end`,
    })
    .where(and(eq(claim.keyspace, keyspace), eq(claim.tenant, tenant), ne(claim.state, "released")))
    .returning({ hash: claim.hash });
  return rows.length;
}

/** Who has the name now, by tenant. */
export const holdersOf = (reader: Reader, namespace: string, hash: string): Promise<ClaimRow[]> =>
  reader
    .select(columns)
    .from(claim)
    .where(and(ofName(namespace, hash), held))
    .orderBy(claim.keyspace, claim.tenant);

export type ClaimFilter = {
  readonly after: ClaimKey | undefined;
  readonly limit: number;
  readonly tenant?: string | undefined;
  readonly keyspace?: string | undefined;
  readonly namespace?: string | undefined;
};

export async function listClaims(reader: Reader, filter: ClaimFilter): Promise<ClaimRow[]> {
  const { after, tenant, keyspace, namespace } = filter;
  return reader
    .select(columns)
    .from(claim)
    .where(
      and(
        held,
        tenant === undefined ? undefined : eq(claim.tenant, tenant),
        keyspace === undefined ? undefined : eq(claim.keyspace, keyspace),
        namespace === undefined ? undefined : eq(claim.namespace, namespace),
        after === undefined
          ? undefined
          : sql`(${claim.namespace}, ${claim.hash}, ${claim.keyspace}, ${claim.tenant})
                > (${after.namespace}, ${after.hash}, ${after.keyspace}, ${after.tenant})`,
      ),
    )
    .orderBy(claim.namespace, claim.hash, claim.keyspace, claim.tenant)
    .limit(filter.limit);
}

export const toClaim = (row: ClaimRow): Claim =>
  claimSchema.parse({
    ...row,
    id: claimText(row.namespace, row.hash),
    expiresAt: row.expiresAt === null ? null : isoTime(row.expiresAt.getTime()),
    createdAt: isoTime(row.createdAt.getTime()),
  });

/** What nobody has any more and routers never heard of; the tombstones of the others stay. */
export async function tidyClaims(tx: Tx): Promise<void> {
  await tx.execute(sql`
    delete from cellfleet_control.claim
     where revision is null
       and (state = 'released' or (state = 'reserved' and expires_at <= clock_timestamp()))`);
}

export const notClaimed = (what: string): CellError =>
  new CellError("CLAIM_UNKNOWN", what, { nextSteps: ["cellctl claim ls --tenant TENANT"] });
