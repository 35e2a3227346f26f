/**
 * What moves have made in one cell's database and is still there: for a sweep that removes what no open move
 * knows. A slot that nobody reads keeps write-ahead log until the disk is full.
 *
 * What must always be true: only names that moves give are looked at; who may go is the caller's word.
 */
import { z } from "zod";
import { opIdSchema } from "../contract/ids.ts";
import type { Clock } from "../runtime/clock.ts";
import { withMover } from "./connection.ts";
import { streamNamePattern } from "./names.ts";
import type { StoreLogin } from "./ports.ts";
import { dropPublication, dropSlot, dropSubscription } from "./streams-objects.ts";

const leftoverSchema = z.object({
  kind: z.enum(["subscription", "slot", "publication", "ownership"]),
  /** Of `ownership`: a key that is `importing`. */
  name: z.string(),
  /** Whose it is, by its name; a later move that goes back on this stream is not seen from it. */
  op: opIdSchema,
});
export type Leftover = z.infer<typeof leftoverSchema>;

const purpose = { name: "cellfleet leftovers" };

export async function findLeftovers(login: StoreLogin): Promise<Leftover[]> {
  return withMover(login, purpose, async (client) => {
    const { rows } = await client.query<{ item: unknown }>(
      `select jsonb_build_object('kind', f.kind, 'name', f.name, 'op',
                coalesce(f.op, 'op_' || split_part(f.name, '_', 2))) as item
         from (
           select 1 as n, 'subscription' as kind, s.subname::text as name, null as op
             from pg_subscription s join pg_database d on d.oid = s.subdbid and d.datname = current_database()
            where s.subname ~ $1
           union all
           select 2, 'slot', slot_name::text, null from pg_replication_slots
            where database = current_database() and slot_name ~ $1
           union all
           select 3, 'publication', pubname::text, null from pg_publication where pubname ~ $1
           union all
           select 4, 'ownership', key, op from cellfleet.ownership where state = 'importing') f
        order by f.n, f.name`,
      [streamNamePattern],
    );
    return rows.map(({ item }) => leftoverSchema.parse(item));
  });
}

/** A key that is `importing` is not removed here: its rows have to go first, which is `undo` of its move. */
export async function dropLeftover(
  login: StoreLogin,
  { kind, name }: Leftover,
  clock: Clock,
): Promise<void> {
  await withMover(login, purpose, async (client) => {
    if (kind === "subscription") await dropSubscription(client, name, clock);
    else if (kind === "slot") await dropSlot(client, name, clock);
    else if (kind === "publication") await dropPublication(client, name);
  });
}
