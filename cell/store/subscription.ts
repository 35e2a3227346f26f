/**
 * Hears of changes of ownership through LISTEN.
 *
 * A notification is only a hint to read `ownershipSince(change)`; one may be lost with its
 * connection, so a listener reads once more whenever it (re)connects, and polls slowly besides.
 */
import type pg from "pg";

export const ownershipChannel = "cellfleet_ownership";

export type Subscription = {
  /** Stops listening; the connection stays the caller's. */
  readonly close: () => Promise<void>;
};

/** `client`: one connection of its own, not a pool and not behind PgBouncer in transaction mode. */
export async function subscribeOwnership(
  client: pg.ClientBase,
  onChange: (change: number) => void,
): Promise<Subscription> {
  const hear = (message: pg.Notification) => {
    if (message.channel === ownershipChannel) onChange(Number(message.payload));
  };
  client.on("notification", hear);
  await client.query(`listen ${ownershipChannel}`);
  return {
    close: async () => {
      client.off("notification", hear);
      await client.query(`unlisten ${ownershipChannel}`);
    },
  };
}
