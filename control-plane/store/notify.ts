/**
 * LISTEN: hear of changes as they commit. A notification is a hint to look, never the news itself:
 * a connection that broke has missed some, so every reconnection calls `onWake` for every channel,
 * and whoever waits also looks by itself now and then.
 */
import pg from "pg";
import type { Clock } from "../../runtime/clock.ts";

export const channels = {
  /** Payload: the new revision. */
  revision: "cellfleet_revision",
  /** Payload: the operation's id. */
  op: "cellfleet_op",
  /** Payload: empty. */
  event: "cellfleet_event",
  /** Payload: the question that was answered; empty when one was asked. */
  query: "cellfleet_query",
} as const;
export type Channel = (typeof channels)[keyof typeof channels];

export type Listener = { readonly close: () => Promise<void> };

const reconnectMinMs = 200;
const reconnectMaxMs = 5000;

export function startListener(options: {
  readonly url: string;
  readonly clock: Clock;
  readonly onWake: (channel: Channel, payload: string) => void;
  readonly onError: (error: unknown) => void;
}): Listener {
  const stop = new AbortController();
  let current: pg.Client | undefined;

  /** Listens until the connection breaks or `close` is called. */
  async function session(onReady: () => void): Promise<void> {
    const client = new pg.Client({
      connectionString: options.url,
      application_name: "cellfleet-control-plane-listen",
      connectionTimeoutMillis: 5000,
      keepAlive: true,
    });
    current = client;
    const ended = new Promise<void>((resolve) => {
      client.once("end", () => resolve());
      client.on("error", (error) => {
        if (!stop.signal.aborted) options.onError(error);
        resolve();
      });
    });
    try {
      await client.connect();
      client.on("notification", ({ channel, payload }) => {
        const known = Object.values(channels).find((name) => name === channel);
        if (known !== undefined) options.onWake(known, payload ?? "");
      });
      for (const channel of Object.values(channels)) await client.query(`listen ${channel}`);
      onReady();
      for (const channel of Object.values(channels)) options.onWake(channel, "");
      await ended;
    } finally {
      current = undefined;
      // The socket may be broken already; what matters is that it does not stay.
      await client.end().catch(() => undefined);
    }
  }

  async function run(): Promise<void> {
    let waitMs = reconnectMinMs;
    while (!stop.signal.aborted) {
      try {
        await session(() => {
          waitMs = reconnectMinMs;
        });
      } catch (error) {
        if (!stop.signal.aborted) options.onError(error);
      }
      if (stop.signal.aborted) return;
      await options.clock.sleep(waitMs, stop.signal);
      waitMs = Math.min(waitMs * 2, reconnectMaxMs);
    }
  }

  const running = run();
  return {
    close: async () => {
      stop.abort();
      await current?.end().catch(() => undefined); // Already ended by the server: nothing to close.
      await running;
    },
  };
}
