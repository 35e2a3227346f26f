/** Which keys failovers took from a cell, and where they are now. */
import { and, eq, inArray, ne } from "drizzle-orm";
import { type Homecoming, homecomingSchema } from "../../../contract/salvage-api.ts";
import type { Reader } from "../database.ts";
import { inMotion } from "../moves/ask.ts";
import { placement } from "../schema.ts";
import { failover, failoverKey } from "../schema-standby.ts";

const movable: ReadonlySet<string> = new Set(["active"]);

export async function readHomecoming(reader: Reader, cell: string): Promise<Homecoming> {
  const taken = reader
    .select({ key: failoverKey.key })
    .from(failoverKey)
    .innerJoin(failover, eq(failover.op, failoverKey.failover))
    .where(eq(failover.cell, cell));
  const rows = await reader
    .select({ key: placement.key, state: placement.state })
    .from(placement)
    .where(
      and(inArray(placement.key, taken), ne(placement.cell, cell), eq(placement.deleted, false)),
    )
    .orderBy(placement.key);
  const moving = new Set(
    (
      await inMotion(
        reader,
        rows.map(({ key }) => key),
      )
    ).map(({ key }) => key),
  );
  const still = rows.filter(({ key }) => !moving.has(key));
  return homecomingSchema.parse({
    cell,
    keys: still.filter(({ state }) => movable.has(state)).map(({ key }) => key),
    moving: moving.size,
    unmovable: still.filter(({ state }) => !movable.has(state)),
  });
}
