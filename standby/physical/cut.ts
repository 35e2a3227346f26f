/**
 * Cutting a physical stream (rule R4): the promotion is the cut.
 *
 * What must always be true: the way to the origin is taken out of the server's files before anything else,
 * so that a server that is killed in between does not find it again; the origin is asked for nothing; where
 * it was cut is written into every store, and a repeated call says the same.
 */
import type pg from "pg";
import { serverSlot } from "../../contract/annex.ts";
import { CellError } from "../../contract/errors.ts";
import { endSessions } from "../../moving/copy-slot.ts";
import type { Clock } from "../../runtime/clock.ts";
import { withKeeper } from "../keeper.ts";
import { makerName, streamName } from "../names.ts";
import type { SeveredAt, StandbyPair } from "../ports.ts";
import { beginCut, endCut, type StreamRecord } from "../record.ts";
import { firstOf, isFollowing, lockConnection, readSwitch, reload, until } from "./server.ts";

/** PostgreSQL applies first what has arrived and was not applied yet. */
const promoteSecondsMax = 50;

type Cut = Pick<StreamRecord, "remoteLsn" | "heartbeatAgeMs">;

export async function cutServer(pair: StandbyPair, clock: Clock): Promise<SeveredAt> {
  const { annex } = firstOf(pair);
  const slot = serverSlot(pair.annex);
  await withKeeper(annex, { name: `${slot} cut` }, async (client) => {
    await endSessions(client, makerName(slot), clock);
    await lockConnection(client);
    if (await isFollowing(client)) await promote(client, pair, clock);
  });
  const remoteLsn = await readSwitch(annex, `${slot} history`);
  const cuts = await Promise.all(
    pair.stores.map((store) =>
      withKeeper(store.annex, { name: `${slot} cut` }, (client) =>
        recordCut(client, streamName(pair.annex, store.name), { origin: pair.origin, remoteLsn }),
      ),
    ),
  );
  const ages = cuts.flatMap(({ heartbeatAgeMs: age }) => (age === null ? [] : [age]));
  return {
    stores: pair.stores.map(({ name }, at) => ({ name, remoteLsn: cuts[at]?.remoteLsn ?? null })),
    heartbeatAgeMs: ages.length === 0 ? null : Math.max(...ages),
  };
}

async function promote(client: pg.Client, { annex }: StandbyPair, clock: Clock): Promise<void> {
  await client.query("alter system set primary_conninfo = ''");
  await reload(client, clock);
  await until(client, clock, `${annex} receives nothing any more`, async () => {
    const { rows } = await client.query("select from pg_stat_wal_receiver");
    return rows.length === 0;
  });
  const { rows } = await client.query<{ done: boolean }>("select pg_promote(true, $1) as done", [
    promoteSecondsMax,
  ]);
  if (rows[0]?.done === true) return;
  throw new CellError("STANDBY_BROKEN", `The server of standby ${annex} is not promoted yet`, {
    nextSteps: ["cellctl standby ls"],
  });
}

/** By this side's clock: a heartbeat bears the time of its origin. */
export const heartbeatAge = `(select greatest(0, extract(epoch from clock_timestamp() - h.at) * 1000)::float8
   from cellfleet.heartbeat h where h.origin = $1)`;

async function recordCut(
  client: pg.Client,
  name: string,
  { origin, remoteLsn }: { readonly origin: string; readonly remoteLsn: string },
): Promise<Cut> {
  const record = await beginCut(client, name);
  if (record.state === "severed") return record;
  const { rows } = await client.query<{ age: number | null }>(`select ${heartbeatAge} as age`, [
    origin,
  ]);
  const cut = { remoteLsn, heartbeatAgeMs: rows[0]?.age ?? null };
  await endCut(client, name, cut);
  return cut;
}
