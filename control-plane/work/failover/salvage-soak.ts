/**
 * The new home of a key dies while its move soaks: the source follows it by the way back, and may have more of
 * it than any standby. Before the source may serve, that stream is cut there, as those to annexes are: a
 * zombie brings nothing into data that somebody else serves (rule R4).
 */
import type pg from "pg";
import { withMover } from "../../../moving/connection.ts";
import { backName } from "../../../moving/names.ts";
import { dropSubscription, endWorkers, hasSubscription } from "../../../moving/streams-objects.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { positionsText, type StorePosition } from "../../core/failover/rpo-position.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import type { Database } from "../../store/database.ts";
import { buildTask, type ResolveSecret } from "../moving/task.ts";

/** Store by store as one text (rpo-position.ts); null: of one nobody knows. Needs nothing of the dead cell. */
export async function cutWayBack(
  world: { readonly database: Database; readonly clock: Clock; readonly resolve: ResolveSecret },
  move: MoveView,
): Promise<string | null> {
  const task = await buildTask(world.database.read, world.resolve, move);
  const positions: StorePosition[] = [];
  for (const [index, { source }] of task.stores.entries()) {
    const name = backName(task, index);
    const cut = (client: pg.Client) => cutHere(client, name, world.clock);
    const remoteLsn = await withMover(source, { name: `${name} cut` }, cut);
    positions.push({ name: source.store, remoteLsn });
  }
  return positionsText(positions);
}

async function cutHere(client: pg.Client, name: string, clock: Clock): Promise<string | null> {
  if (!(await hasSubscription(client, name))) return null;
  await client.query(`alter subscription ${client.escapeIdentifier(name)} disable`);
  await endWorkers(client, name, clock);
  const { rows } = await client.query<{ lsn: string | null }>(
    `select p.remote_lsn::text as lsn
       from pg_subscription s join pg_database d on d.oid = s.subdbid
       join pg_show_replication_origin_status() p on p.external_id = 'pg_' || s.oid
      where s.subname = $1 and d.datname = current_database()`,
    [name],
  );
  await dropSubscription(client, name, clock);
  const lsn = rows[0]?.lsn ?? null;
  return lsn === "0/0" ? null : lsn;
}
