/**
 * Cutting a stream (rule R4), and taking a standby down.
 *
 * What must always be true: cutting asks nothing of the origin, and waits for nothing of it; what it says,
 * where the stream stood, is committed with the end of the subscription, so a repeated call says the same;
 * afterwards nobody joins the stream again, a keeper that was left behind included.
 */
import pg from "pg";
import { CellError } from "../contract/errors.ts";
import { inTransaction } from "../moving/connection.ts";
import { endSessions } from "../moving/copy-slot.ts";
import type { StoreLogin } from "../moving/ports.ts";
import {
  dropPublication,
  dropSlot,
  dropSubscription,
  endWorkers,
  hasSubscription,
} from "../moving/streams-objects.ts";
import type { Clock } from "../runtime/clock.ts";
import { isDatabaseGone, withKeeper } from "./keeper.ts";
import { makerName, streamName } from "./names.ts";
import type { SeveredAt, StandbyPair } from "./ports.ts";
import { beginCut, endCut, forgetRecord, readRecord, type StreamRecord } from "./record.ts";
import { dropCopySlots } from "./stream.ts";

type StandbyStore = StandbyPair["stores"][number];
export type SeveredStore = SeveredAt["stores"][number] & { readonly heartbeatAgeMs: number | null };

/** Nothing of it is applied in this store when this resolves, nor ever again. */
export async function severStore(
  pair: StandbyPair,
  { name: store, annex }: StandbyStore,
  clock: Clock,
): Promise<SeveredStore> {
  const name = streamName(pair.annex, store);
  return withKeeper(annex, { name: `${name} cut` }, async (client) => {
    await endSessions(client, makerName(name), clock);
    const record = await beginCut(client, name);
    if (record.state === "severed") return { name: store, ...positionOf(record) };
    if (await hasSubscription(client, name)) {
      await client.query(`alter subscription ${pg.escapeIdentifier(name)} disable`);
      await endWorkers(client, name, clock);
    }
    const at = await inTransaction(client, async () => {
      const position = await readPosition(client, name, pair.origin);
      await endCut(client, name, position);
      await dropDetached(client, name);
      return position;
    });
    return { name: store, ...at };
  });
}

/** Of a store that was cut before. */
export async function readCut(
  pair: StandbyPair,
  { name: store, annex }: StandbyStore,
): Promise<string | null> {
  const name = streamName(pair.annex, store);
  const record = await withKeeper(annex, { name: `${name} cut` }, (client) =>
    readRecord(client, name),
  );
  if (record?.state === "severed") return record.remoteLsn;
  throw new CellError(
    "SALVAGE_UNFIT",
    `The stream of store ${store} into ${pair.annex} was not cut: what it lacks may still come`,
    { nextSteps: ["cellctl standby ls"] },
  );
}

const positionOf = ({ remoteLsn, heartbeatAgeMs }: StreamRecord) => ({ remoteLsn, heartbeatAgeMs });

/**
 * Everything that the origin committed below it is applied. What was applied last says where; a copy of a
 * table that the stream has caught up with (`r`) says the same of a stream in which nothing came since.
 */
async function readPosition(
  client: pg.Client,
  name: string,
  origin: string,
): Promise<Pick<SeveredStore, "remoteLsn" | "heartbeatAgeMs">> {
  const { rows } = await client.query<{ lsn: string | null; age: number | null }>(
    `select greatest(
              (select nullif(o.remote_lsn, '0/0') from pg_show_replication_origin_status() o
                where o.external_id = 'pg_' || s.oid),
              (select max(r.srsublsn) from pg_subscription_rel r
                where r.srsubid = s.oid and r.srsubstate = 'r'))::text as lsn,
            cellfleet.heartbeat_age_ms($2) as age
       from (values (1)) one
       left join (select s.oid from pg_subscription s
                    join pg_database d on d.oid = s.subdbid and d.datname = current_database()
                   where s.subname = $1) s on true`,
    [name, origin],
  );
  return { remoteLsn: rows[0]?.lsn ?? null, heartbeatAgeMs: rows[0]?.age ?? null };
}

/** Leads nowhere, and says so at once: PostgreSQL would go to the origin for the slots of unfinished copies. */
const nowhere = "host=/dev/null user=nobody password=none dbname=none";

async function dropDetached(client: pg.Client, name: string): Promise<void> {
  if (!(await hasSubscription(client, name))) return;
  const id = pg.escapeIdentifier(name);
  await client.query(`alter subscription ${id} connection '${nowhere}'`);
  await client.query(`alter subscription ${id} set (slot_name = none)`);
  await client.query(`drop subscription ${id}`);
}

/**
 * Each side by itself: one that does not answer keeps nothing alive in the other. A stream that was cut
 * stays cut: its line in the annex goes with the annex's database.
 */
export async function dropStore(
  pair: StandbyPair,
  { name: store, origin, annex }: StandbyStore,
  where: "there" | "gone",
  clock: Clock,
): Promise<void> {
  const name = streamName(pair.annex, store);
  const [inAnnex] = await Promise.allSettled([dropInAnnex(name, annex, where, clock)]);
  const [atOrigin] =
    where === "gone"
      ? []
      : await Promise.allSettled([
          dropAtOrigin(
            name,
            origin,
            inAnnex.status === "fulfilled" ? inAnnex.value : undefined,
            clock,
          ),
        ]);
  for (const side of [inAnnex, atOrigin]) {
    if (side?.status === "rejected" && !isDatabaseGone(side.reason)) throw side.reason;
  }
  if (inAnnex.status === "rejected") return;
  // Last: until both sides are cleared it tells which slots of copies are its own.
  await withKeeper(annex, { name: `${name} drop` }, (client) => forgetRecord(client, name));
}

async function dropInAnnex(
  name: string,
  login: StoreLogin,
  where: "there" | "gone",
  clock: Clock,
): Promise<StreamRecord | undefined> {
  return withKeeper(login, { name: `${name} drop` }, async (client) => {
    await endSessions(client, makerName(name), clock);
    const record = await readRecord(client, name);
    if (where === "there") {
      await dropSubscription(client, name, clock);
    } else if (await hasSubscription(client, name)) {
      await client.query(`alter subscription ${pg.escapeIdentifier(name)} disable`);
      await endWorkers(client, name, clock);
      await inTransaction(client, () => dropDetached(client, name));
    }
    return record;
  });
}

async function dropAtOrigin(
  name: string,
  login: StoreLogin,
  record: StreamRecord | undefined,
  clock: Clock,
): Promise<void> {
  await withKeeper(login, { name: `${name} drop` }, async (client) => {
    await endSessions(client, makerName(name), clock);
    await dropSlot(client, name, clock);
    if (record?.subscription != null) {
      const { subscription: oid, systemIdentifier } = record;
      await dropCopySlots(client, { oid, systemIdentifier }, clock);
    }
    await dropPublication(client, name);
  });
}
