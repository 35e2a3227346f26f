/**
 * The server of a physical standby, as the mover's role finds and steers it: does it follow its origin, from
 * where, and where did it leave it.
 *
 * What must always be true: an emptied `primary_conninfo` is the durable mark of a stream that is being cut,
 * and is never filled again; who fills it and who empties it hold one lock, and both read what stands in the
 * server's files, not what their session remembers. Where a server left its origin is read from the history
 * of its timelines: durable and exact, whoever promoted it and however often it was restarted since.
 */
import type pg from "pg";
import { z } from "zod";
import { serverSlot } from "../../contract/annex.ts";
import { CellError } from "../../contract/errors.ts";
import { connectionText } from "../../moving/connection.ts";
import type { StoreLogin } from "../../moving/ports.ts";
import type { Clock } from "../../runtime/clock.ts";
import { withKeeper } from "../keeper.ts";
import { makerName } from "../names.ts";
import type { StandbyPair } from "../ports.ts";

export type StandbyStore = StandbyPair["stores"][number];

/** Roles, settings and log are the server's: any of its databases leads to them. */
export function firstOf({ annex, stores }: StandbyPair): StandbyStore {
  const [first] = stores;
  if (first !== undefined) return first;
  throw new CellError("STANDBY_BROKEN", `The standby ${annex} has no database that it could keep`);
}

/** Nobody else fills or empties `primary_conninfo` until this session ends. */
export async function lockConnection(client: pg.Client): Promise<void> {
  await client.query("select pg_advisory_lock(cellfleet.lock_key('cellfleet/primary_conninfo'))");
}

const settleMsMax = 10_000;
const pollMs = 5;

/** This session knows what the server's files say now. */
export async function reload(client: pg.Client, clock: Clock): Promise<void> {
  const { rows } = await client.query<{ at: string }>(
    "select clock_timestamp()::text as at from pg_reload_conf()",
  );
  await until(client, clock, "the server has read its settings", async () => {
    const { rows: loaded } = await client.query(
      "select from (values (1)) one where pg_conf_load_time() >= $1::timestamptz",
      [rows[0]?.at],
    );
    return loaded.length > 0;
  });
}

export async function until(
  client: pg.Client,
  clock: Clock,
  what: string,
  holds: (client: pg.Client) => Promise<boolean>,
): Promise<void> {
  const deadline = clock.monotonicMs() + settleMsMax;
  while (!(await holds(client))) {
    if (clock.monotonicMs() > deadline) {
      throw new CellError("STANDBY_BROKEN", `It takes too long until ${what}`, {
        nextSteps: ["cellctl standby ls"],
      });
    }
    await clock.sleep(pollMs);
  }
}

export async function isFollowing(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ following: boolean }>(
    "select pg_is_in_recovery() as following",
  );
  return rows[0]?.following === true;
}

/** The origin may have moved, or the mover's password changed. A stream that was cut is STATE_CONFLICT. */
export async function renewConnection(pair: StandbyPair, clock: Clock): Promise<void> {
  const { origin, annex } = firstOf(pair);
  const slot = serverSlot(pair.annex);
  const wanted = connectionText(origin, slot);
  await withKeeper(annex, { name: makerName(slot) }, async (client) => {
    await lockConnection(client);
    await reload(client, clock);
    const { rows } = await client.query<{ now: string }>(
      "select current_setting('primary_conninfo') as now",
    );
    const now = rows[0]?.now ?? "";
    if (now === "" || !(await isFollowing(client))) throw wasCut(pair);
    if (now === wanted) return;
    await client.query(`alter system set primary_conninfo = ${client.escapeLiteral(wanted)}`);
    await reload(client, clock);
  });
}

export const wasCut = ({ annex }: StandbyPair): CellError =>
  new CellError(
    "STATE_CONFLICT",
    `The stream of standby ${annex} was cut: nothing of its origin is applied there any more`,
    { nextSteps: ["a new standby takes its place by itself: cellctl standby ls"] },
  );

const identitySchema = z.object({ timeline: z.coerce.number() });
const historySchema = z.object({ content: z.unknown() });

/** Everything that the origin committed up to here is in this server, and nothing that came behind. */
export async function readSwitch(login: StoreLogin, name: string): Promise<string> {
  return withKeeper(login, { name, replication: true }, async (client) => {
    const { rows } = await client.query("IDENTIFY_SYSTEM");
    const { timeline } = identitySchema.parse(rows[0]);
    if (timeline > 1) {
      const { rows: history } = await client.query(`TIMELINE_HISTORY ${timeline}`);
      const place = lastSwitch(String(historySchema.parse(history[0]).content));
      if (place !== undefined) return place;
    }
    throw new CellError(
      "STANDBY_BROKEN",
      `The server of standby ${login.cell} has never followed another one`,
      { nextSteps: ["cellctl standby ls"] },
    );
  });
}

/** Of a history, `1\t0/3000110\tno recovery target specified`: the youngest line stands last. */
export function lastSwitch(history: string): string | undefined {
  const places = history.split("\n").flatMap((line) => {
    const [, place] = /^\s*\d+\s+([0-9A-F]+\/[0-9A-F]+)\s/i.exec(`${line}\n`) ?? [];
    return place === undefined ? [] : [place];
  });
  return places.at(-1);
}
