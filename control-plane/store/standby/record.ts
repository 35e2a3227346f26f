/**
 * Records what is made of standbys: the row, the annex's row in `cell`, partner lists of origins, audit
 * entries and events. Each function is one transaction, refused to whoever does not lead any more.
 *
 * What must always be true: a standby changes its state only along core/standby/life.ts, and only from
 * the state that the decision was made on; a partner list changes with the state that it tells.
 */
import { and, eq, sql } from "drizzle-orm";
import type { StandbyProviderName, StandbyState } from "../../../contract/standby-api.ts";
import { assert } from "../../../runtime/assert.ts";
import type { Buckets } from "../../core/standby/buckets.ts";
import { mayFollow } from "../../core/standby/life.ts";
import { isLiving } from "../../core/standby/standby-view.ts";
import { type Actor, recordAudit } from "../audit.ts";
import { recordable } from "../audit-chain.ts";
import type { Database, Tx } from "../database.ts";
import { type NewEvent, recordEvents } from "../events.ts";
import { readCells } from "../fleet-store.ts";
import { holdsTerm } from "../leader.ts";
import { forgetPlaced, ownedBy } from "../placements.ts";
import { changeRouting, lockFleet } from "../routing-change.ts";
import { agent, cell } from "../schema.ts";
import { standby } from "../schema-standby.ts";
import { revokeAgentTokens } from "../tokens.ts";

export type Leader = { readonly term: number; readonly nowMs: number };

const keeper: Actor = { name: "control-plane", role: "system" };

/** Undefined: another leads, or the fleet recovers from a restore; nothing was changed. */
async function asLeader<T>(
  database: Database,
  { term }: Leader,
  work: (tx: Tx) => Promise<T | undefined>,
): Promise<T | undefined> {
  return database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return undefined;
    if ((await lockFleet(tx)).mode === "recovering") return undefined;
    return work(tx);
  });
}

export type NewStandby = {
  readonly annex: string;
  readonly origin: string;
  readonly host: string;
  readonly generation: number;
  readonly provider: StandbyProviderName;
  readonly buckets: Buckets;
};

/** False: origin or host is not as it was. */
export async function planStandby(
  database: Database,
  leader: Leader,
  wanted: NewStandby,
): Promise<boolean> {
  const done = await asLeader(database, leader, async (tx) => {
    const cells = await readCells(tx);
    const host = cells.find(({ id }) => id === wanted.host);
    const origin = cells.find(({ id }) => id === wanted.origin);
    const isPossible =
      host?.state === "active" &&
      host.goal === "active" &&
      origin !== undefined &&
      origin.state !== "retired";
    if (!isPossible || cells.some(({ id }) => id === wanted.annex)) return undefined;
    const reason = `${wanted.host} is to keep buckets ${rangeText(wanted.buckets)} of ${wanted.origin}`;
    await recordAudit(
      tx,
      {
        ...{ actor: keeper, action: "standby.create", object: wanted.annex, reason },
        ...{ outcome: "accepted", after: wanted },
      },
      leader.nowMs,
    );
    await insertStandby(tx, wanted, { services: {}, stores: {} });
    return true;
  });
  return done ?? false;
}

export const rangeText = ({ lo, hi }: Buckets): string => `${lo}-${hi}`;

/** The annex is a cell like others, without room of its own: what it adopts, its host has kept room for. */
export async function insertStandby(
  tx: Tx,
  wanted: NewStandby,
  known: {
    readonly services: object;
    readonly stores: object;
    /** Nobody but an operator runs it. */
    readonly byHand?: boolean;
  },
): Promise<void> {
  await changeRouting(tx, { config: true });
  const { annex, origin, host, buckets, ...columns } = wanted;
  await tx.execute(sql`
    insert into cellfleet_control.cell
      (id, state, goal, region, failure_domain, tiers, dedicated, provider, capacity_tenants,
       capacity_bytes, capacity_rps, max_tenant_share, services, stores, annex_origin, annex_host,
       lease_mode, lease_mode_number)
    select ${annex}, 'active', 'active', region, failure_domain, tiers, false,
           case when ${known.byHand === true} then 'none' else provider end, 0, 0, 0, 1,
           ${JSON.stringify(known.services)}::jsonb, ${JSON.stringify(known.stores)}::jsonb,
           ${origin}, ${host},
           -- It falls with its host.
           lease_mode, case when lease_mode = 'timed' then 0 else 1 end
      from cellfleet_control.cell where id = ${host}`);
  await tx.insert(standby).values({
    ...{ ...columns, annex, origin, host, state: "planned" },
    ...{ bucketLo: buckets.lo, bucketHi: buckets.hi },
    reason: "its database and agent are to be made",
  });
}

export type StandbyChange = {
  readonly annex: string;
  readonly from: StandbyState;
  readonly to: StandbyState;
  readonly reason: string;
};

/** False: it is in another state by now, or another leads. */
export async function changeStandby(
  database: Database,
  leader: Leader,
  change: StandbyChange,
): Promise<boolean> {
  const done = await asLeader(database, leader, async (tx) => {
    if (isAudited(change.to)) {
      const { annex, from, to, reason } = change;
      const entry = {
        actor: keeper,
        action: `standby.${actions[to] ?? to}`,
        object: annex,
        reason,
      };
      const states = { before: { state: from }, after: { state: to } };
      await recordAudit(tx, { ...entry, ...states, outcome: "accepted" }, leader.nowMs);
    }
    return applyChange(tx, change);
  });
  return done ?? false;
}

const actions: Readonly<Partial<Record<StandbyState, string>>> = {
  leaving: "leave",
  dropping: "drop",
};
const isAudited = (to: StandbyState): boolean => to in actions;

/**
 * In somebody's transaction that holds the fleet's lock: the change, the list of its origin where that
 * changes with it, and an event where people would want to know. Undefined: it is in another state.
 */
export async function applyChange(tx: Tx, change: StandbyChange): Promise<true | undefined> {
  const { annex, from, to, reason } = change;
  assert(mayFollow(from, to), `a standby that is ${from} may become ${to}`);
  const [row] = await tx
    .update(standby)
    .set({ state: to, reason: recordable(reason), updatedAt: sql`clock_timestamp()` })
    .where(and(eq(standby.annex, annex), eq(standby.state, from)))
    .returning();
  if (row === undefined) return undefined;
  if (to === "announcing" && row.listedAt === null) {
    const listedAt = await nextList(tx, row.origin);
    await tx.update(standby).set({ listedAt }).where(eq(standby.annex, annex));
  }
  if (to === "leaving" && row.listedAt !== null) {
    const unlistedAt = await nextList(tx, row.origin);
    await tx.update(standby).set({ unlistedAt }).where(eq(standby.annex, annex));
  }
  await recordEvents(tx, eventsOf(row, change));
  return true;
}

/** None of them follows the origin any more; its keeper makes others. In a transaction that holds the fleet's lock. */
export async function leaveAll(tx: Tx, origin: string, reason: string): Promise<void> {
  const rows = await tx.select().from(standby).where(eq(standby.origin, origin));
  for (const { annex, state } of rows.filter(isLiving)) {
    await applyChange(tx, { annex, from: state, to: "leaving", reason });
  }
}

/** The origin's next partner list; its agents are told of it with their next call. */
async function nextList(tx: Tx, origin: string): Promise<number> {
  const [row] = await tx
    .update(cell)
    .set({ partnerRevision: sql`${cell.partnerRevision} + 1` })
    .where(eq(cell.id, origin))
    .returning({ revision: cell.partnerRevision });
  return row?.revision ?? 0;
}

function eventsOf(row: typeof standby.$inferSelect, { to, reason }: StandbyChange): NewEvent[] {
  const range = rangeText({ lo: row.bucketLo, hi: row.bucketHi });
  const whose = `the standby of ${row.origin} in ${row.host} (buckets ${range})`;
  const texts: Readonly<Partial<Record<StandbyState, string>>> = {
    ready: `${whose} may be adopted from`,
    broken: `${whose} is broken: ${reason}`,
    leaving: `${whose} leaves: ${reason}`,
    gone: `${whose} is removed`,
  };
  const text = texts[to];
  return text === undefined ? [] : [{ kind: `standby.${to}`, object: row.annex, text }];
}

/** Its database and agent are gone: the annex's id is spent, and with it every token of its agent. */
export async function buryStandby(
  database: Database,
  leader: Leader,
  annex: string,
): Promise<boolean> {
  const done = await asLeader(database, leader, async (tx) => {
    // Keys that came meanwhile must not go with it.
    if ((await ownedBy(tx, annex)).keys > 0) return undefined;
    const change = { annex, from: "dropping", to: "gone", reason: "" } as const;
    if ((await applyChange(tx, change)) === undefined) return undefined;
    const revision = await changeRouting(tx, { config: true });
    await forgetPlaced(tx, annex, revision);
    const retired = { state: "retired", goal: "retired", health: "unknown" } as const;
    await tx
      .update(cell)
      .set({ ...retired, healthReason: "the standby is removed" })
      .where(eq(cell.id, annex));
    await tx.delete(agent).where(eq(agent.cell, annex));
    await revokeAgentTokens(tx, annex, new Date(leader.nowMs));
    return true;
  });
  return done ?? false;
}

/** What a provider says of the annex: how it is reached. */
export async function recordAnnex(
  database: Database,
  leader: Leader,
  annex: string,
  provided: { readonly services: object; readonly stores: object },
): Promise<boolean> {
  const { services, stores } = provided;
  const done = await asLeader(database, leader, async (tx) => {
    await changeRouting(tx, { config: true });
    await tx.update(cell).set({ services, stores }).where(eq(cell.id, annex));
    return true;
  });
  return done ?? false;
}

export type Look = {
  readonly annex: string;
  /** In which it was looked at. */
  readonly state: StandbyState;
  readonly lagBytes: number | null;
  readonly reason: string;
};

/** What was seen of streams just now; only what differs is written. */
export async function recordLooks(
  database: Database,
  { term }: Leader,
  looks: readonly Look[],
): Promise<void> {
  if (looks.length === 0) return;
  const seen = JSON.stringify(looks.map((one) => ({ ...one, reason: recordable(one.reason) })));
  await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return;
    await tx.execute(sql`
      update cellfleet_control.standby as s set lag_bytes = l."lagBytes", reason = l.reason
        from jsonb_to_recordset(${seen}::jsonb) 
             as l(annex text, state text, "lagBytes" float8, reason text)
       where s.annex = l.annex and s.state = l.state
         and (s.lag_bytes is distinct from l."lagBytes" or s.reason <> l.reason)`);
  });
}
