/**
 * What a returned origin committed and its standby never applied, read from the slot that it left.
 *
 * What must always be true: the slot is not consumed, so whoever asks again is told the same; what its
 * place on disk is behind (a crash loses the last steps) is passed over, for the standby has it. A log that
 * is not there, or is another one, is SALVAGE_UNFIT: part of an answer would look like all of it.
 */
import pg from "pg";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { endSessions } from "../moving/copy-slot.ts";
import type { StoreLogin } from "../moving/ports.ts";
import { hasPublication } from "../moving/streams-objects.ts";
import type { Clock } from "../runtime/clock.ts";
import { withKeeper } from "./keeper.ts";
import { streamName } from "./names.ts";
import { PgoutputFault, parsePgoutput } from "./pgoutput.ts";
import type { SalvagedChange, StandbyPair } from "./ports.ts";
import { createSalvagedRows, type KeyedTable } from "./salvaged-rows.ts";

type StandbyStore = StandbyPair["stores"][number];

export type Salvaging = {
  /** Of this store; null: nothing ever was applied. */
  readonly remoteLsn: string | null;
  readonly onChange: (change: SalvagedChange) => void | Promise<void>;
  readonly signal: AbortSignal;
  readonly clock: Clock;
};

/** PostgreSQL decodes all of it, to disk, before it gives the first piece. */
const statementMsMax = 1_800_000;
const messagesPerFetch = 500;

export async function salvageStore(
  pair: StandbyPair,
  { name: store, origin }: StandbyStore,
  { remoteLsn, onChange, signal, clock }: Salvaging,
): Promise<void> {
  const name = streamName(pair.annex, store);
  const application = `${name} salvage`;
  await withKeeper(origin, { name: application, statementMsMax }, async (client) => {
    const stop = () => void client.end().catch(() => {}); // It is being thrown away.
    signal.throwIfAborted();
    signal.addEventListener("abort", stop, { once: true });
    try {
      await endSessions(client, application, clock);
      await passApplied(client, name, origin, remoteLsn);
      const rows = createSalvagedRows(store, await readKeyedTables(client));
      for await (const data of peek(client, name)) {
        const change = rows(parsePgoutput(data));
        if (change === undefined) continue;
        await onChange(change);
        signal.throwIfAborted();
      }
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof PgoutputFault
        ? unfit(origin, `the log of ${name} does not read as it should: ${error.message}`)
        : error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  });
}

const slotSchema = z.object({
  lost: z.boolean(),
  why: z.string().nullable(),
  recovering: z.boolean(),
  /** Is the slot's place before that of the standby, and does the log reach there at all? */
  behind: z.boolean(),
  short: z.boolean(),
});

async function passApplied(
  client: pg.Client,
  name: string,
  origin: StoreLogin,
  remoteLsn: string | null,
): Promise<void> {
  const { rows } = await client.query<{ slot: unknown }>(
    `select jsonb_build_object(
              'lost', s.wal_status = 'lost' or to_jsonb(s) ->> 'invalidation_reason' is not null,
              'why', to_jsonb(s) ->> 'invalidation_reason', 'recovering', pg_is_in_recovery(),
              'behind', coalesce(s.confirmed_flush_lsn < $2::pg_lsn, false),
              'short', coalesce(case when pg_is_in_recovery() then false
                                else pg_current_wal_flush_lsn() < $2::pg_lsn end, false)) as slot
       from pg_replication_slots s where s.slot_name = $1 and s.database = current_database()`,
    [name, remoteLsn],
  );
  if (rows[0] === undefined) throw unfit(origin, `its slot ${name} is gone`);
  const slot = slotSchema.parse(rows[0].slot);
  if (slot.lost) {
    throw unfit(origin, `its slot ${name} has lost write-ahead log (${slot.why ?? "lost"})`);
  }
  if (slot.recovering) throw unfit(origin, "it is recovering, or a replica");
  if (slot.short) {
    throw unfit(
      origin,
      `its log ends before ${remoteLsn}, which the standby has applied: it is an older copy`,
    );
  }
  if (!(await hasPublication(client, name))) throw unfit(origin, `its publication ${name} is gone`);
  if (slot.behind)
    await client.query("select pg_replication_slot_advance($1, $2)", [name, remoteLsn]);
}

const unfit = ({ cell, store }: StoreLogin, why: string): CellError =>
  new CellError(
    "SALVAGE_UNFIT",
    `Store ${store} of cell ${cell} cannot tell what its standby lacks: ${why}`,
    { nextSteps: [`look into the database of ${cell} by hand before it is wiped`] },
  );

/** By `schema.table`, as messages name it. */
async function readKeyedTables(client: pg.Client): Promise<ReadonlyMap<string, KeyedTable>> {
  const { rows } = await client.query<KeyedTable & { name: string }>(
    "select schema_name || '.' || table_name as name, key_column as column, keyspace from cellfleet.guarded_table",
  );
  return new Map(rows.map(({ name, column, keyspace }) => [name, { column, keyspace }]));
}

async function* peek(client: pg.Client, name: string): AsyncGenerator<Buffer> {
  await client.query("begin");
  try {
    await client.query(
      `declare salvage no scroll cursor for
         select data from pg_logical_slot_peek_binary_changes(${pg.escapeLiteral(name)}, null, null,
           'proto_version', '1', 'publication_names', ${pg.escapeLiteral(pg.escapeIdentifier(name))})`,
    );
    for (;;) {
      const { rows } = await client.query<{ data: Buffer }>(
        `fetch ${messagesPerFetch} from salvage`,
      );
      for (const { data } of rows) yield data;
      if (rows.length < messagesPerFetch) return;
    }
  } finally {
    await client.query("rollback").catch(() => {}); // The connection is gone, and the transaction with it.
  }
}
