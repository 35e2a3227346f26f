/**
 * The line that the annex's database keeps of a stream (cell/sql/125-standby-stream.sql): whether it may
 * still be joined, and where it was cut.
 */
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";

const recordSchema = z.object({
  state: z.enum(["kept", "severing", "severed"]),
  /** Of the subscription that was made last, and of the server it was made in. */
  subscription: z.string().nullable(),
  systemIdentifier: z.string(),
  remoteLsn: z.string().nullable(),
  heartbeatAgeMs: z.number().nullable(),
});
export type StreamRecord = z.infer<typeof recordSchema>;

const asJson = `jsonb_build_object('state', s.state, 'subscription', s.subscription::text,
  'systemIdentifier', (select i.system_identifier from cellfleet.server_identity() i),
  'remoteLsn', s.remote_lsn::text, 'heartbeatAgeMs', s.heartbeat_age_ms) as record`;

export async function readRecord(
  client: Queryable,
  name: string,
): Promise<StreamRecord | undefined> {
  const { rows } = await client.query<{ record: unknown }>(
    `select ${asJson} from cellfleet.standby_stream s where s.name = $1`,
    [name],
  );
  return rows[0] === undefined ? undefined : recordSchema.parse(rows[0].record);
}

/** There is a line, and it says `kept`; until the transaction ends nobody can begin to cut. */
export async function holdRecord(client: Queryable, name: string, annex: CellId): Promise<void> {
  const { rows } = await client.query<{ state: string }>(
    `insert into cellfleet.standby_stream as s (name, state) values ($1, 'kept')
     on conflict (name) do update set state = s.state returning s.state`,
    [name],
  );
  if (rows[0]?.state === "kept") return;
  throw new CellError(
    "STATE_CONFLICT",
    `The stream of standby ${annex} was cut: nothing of its origin is applied there any more`,
    { nextSteps: ["a new standby takes its place by itself: cellctl standby ls"] },
  );
}

export async function noteSubscription(client: Queryable, name: string): Promise<void> {
  await client.query(
    `update cellfleet.standby_stream r set subscription = s.oid, changed_at = clock_timestamp()
       from pg_subscription s join pg_database d on d.oid = s.subdbid and d.datname = current_database()
      where r.name = $1 and s.subname = $1`,
    [name],
  );
}

/** From here on nobody joins the stream; what the line says. */
export async function beginCut(client: Queryable, name: string): Promise<StreamRecord> {
  await client.query(
    `insert into cellfleet.standby_stream as s (name, state) values ($1, 'severing')
     on conflict (name) do update set state = 'severing', changed_at = clock_timestamp()
       where s.state = 'kept'`,
    [name],
  );
  const record = await readRecord(client, name);
  if (record === undefined) throw new Error(`the line of ${name} has vanished`);
  return record;
}

export async function endCut(
  client: Queryable,
  name: string,
  at: { readonly remoteLsn: string | null; readonly heartbeatAgeMs: number | null },
): Promise<void> {
  await client.query(
    `update cellfleet.standby_stream set state = 'severed', remote_lsn = $2::pg_lsn,
            heartbeat_age_ms = $3, changed_at = clock_timestamp() where name = $1`,
    [name, at.remoteLsn, at.heartbeatAgeMs],
  );
}

/** Of a stream that was never cut. */
export async function forgetRecord(client: Queryable, name: string): Promise<void> {
  await client.query("delete from cellfleet.standby_stream where name = $1 and state = 'kept'", [
    name,
  ]);
}
