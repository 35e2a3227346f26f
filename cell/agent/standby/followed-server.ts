/**
 * Heartbeats of the origin as the server of a physical standby has applied them. Until a takeover the annex's
 * agent stands on databases of its host, into which nothing is streamed: what has arrived is read there.
 *
 * What must always be true: a heartbeat is told only when it was read from the standby itself, where
 * everything that the origin committed before it is applied too; one that cannot be read is not told anew.
 */
import pg from "pg";
import { z } from "zod";
import type { Clock } from "../../../runtime/clock.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import type { FollowedBeat } from "./followed-beat.ts";

const beatSchema = z.object({ beat: z.number(), grant: z.number() });

export type FollowedServer = {
  /** The newest; undefined: none was read yet. */
  readonly latest: () => FollowedBeat | undefined;
  readonly close: () => Promise<void>;
};

/** Heartbeats are written every half second. */
const lookMs = 200;
const backoffMaxMs = 1000;
const answerMsMax = 2000;

export function followServer(options: {
  readonly clock: Clock;
  readonly random: Random;
  /** Asked for at every connection: a copy that is made anew stands elsewhere. */
  readonly url: () => Promise<string>;
  readonly origin: () => string | undefined;
}): FollowedServer {
  const { clock, random, url, origin } = options;
  let client: pg.Client | undefined;
  let latest: FollowedBeat | undefined;

  async function look(): Promise<void> {
    const name = origin();
    if (name === undefined) return;
    client ??= await open(await url());
    const { rows } = await client.query<{ seen: unknown }>(
      `select jsonb_build_object('beat', h.beat, 'grant', h.lease_grant) as seen
         from cellfleet.heartbeat h where h.origin = $1`,
      [name],
    );
    if (rows[0] !== undefined) latest = beatSchema.parse(rows[0].seen);
  }

  const drop = async (): Promise<void> => {
    const before = client;
    client = undefined;
    await before?.end().catch(() => {}); // The server may have closed it.
  };
  const loop: Loop = startLoop({
    ...{ clock, random, intervalMs: lookMs, backoffMaxMs },
    turn: async () => {
      try {
        await look();
      } catch (error) {
        await drop();
        throw error;
      }
      return "idle";
    },
    // No copy yet, or one that is made anew: that no heartbeat arrives is the message.
    onError: () => {},
  });
  return {
    latest: () => latest,
    close: async () => {
      await loop.close();
      await drop();
    },
  };
}

async function open(url: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    application_name: "cellfleet agent",
    connectionTimeoutMillis: answerMsMax,
    query_timeout: answerMsMax,
  });
  client.on("error", () => {}); // The next look reports it.
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => {}); // Never opened.
    throw error;
  }
}
