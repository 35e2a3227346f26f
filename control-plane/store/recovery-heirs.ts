/** What is known, in this database and of this recovery, of who could own a key and was not heard. */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import { bucketOf, parsePlacementKey } from "../../contract/placement-key.ts";
import type { HeirFacts } from "../core/recovery-heirs.ts";
import type { Reader } from "./database.ts";

type KeyspaceShape = Parameters<typeof bucketOf>[1];

export type Heirs = HeirFacts & {
  readonly bucketOf: (key: string) => number | undefined;
};

export async function readHeirs(reader: Reader): Promise<Heirs> {
  const { rows: cells } = await reader.execute<{
    cell: string;
    state: string;
    leased: boolean;
    steady: boolean;
  }>(sql`select cell, state, leased, steady from cellfleet_control.recovery_cell`);
  const { rows: annexes } = await reader.execute<HeirFacts["annexes"][number]>(sql`
    select annex, origin, bucket_lo as lo, bucket_hi as hi, takeover_failover is not null as ordered
      from cellfleet_control.standby where state <> 'gone'`);
  const { rows: keyspaces } = await reader.execute<
    { name: string; slots: number | null } & Pick<KeyspaceShape, "strategy">
  >(sql`select name, strategy, slot_count as slots from cellfleet_control.keyspace`);
  const shapes = new Map(
    keyspaces.map(({ name, strategy, slots }): [string, KeyspaceShape] => [
      name,
      { strategy, slotCount: slots ?? undefined },
    ]),
  );
  const named = (is: (one: (typeof cells)[number]) => boolean) =>
    new Set(cells.filter(is).map(({ cell }) => cell));
  return {
    silent: named(({ state }) => state === "frozen"),
    leased: named(({ leased }) => leased),
    steady: named(({ steady }) => steady),
    heard: named(({ state }) => state === "reported"),
    annexes,
    bucketOf: (key) => {
      const parts = parsePlacementKey(key);
      const shape = parts === undefined ? undefined : shapes.get(parts.keyspace);
      return parts === undefined || shape === undefined ? undefined : bucketOf(parts, shape);
    },
  };
}

/**
 * Its first call in a recovery tells; by the next ones its lease may be over, for it is granted none. One that
 * gives itself leases may do so after it was taken over from by a power-off, too: unless it was never off.
 */
export async function noteLeased(
  reader: Reader,
  said: AgentSyncRequest,
  known: { readonly boot: string },
): Promise<void> {
  const { primary, database, leaseLeftMs = 0, leaseInPart = true, leaseMode } = said;
  if (!primary || !database.reachable || leaseLeftMs <= 0) return;
  const steady = database.boot === known.boot;
  const leased = !leaseInPart && (steady || leaseMode?.mode !== "manual");
  if (!steady && !leased) return;
  await reader.execute(sql`
    update cellfleet_control.recovery_cell as r
       set leased = r.leased or ${leased}, steady = r.steady or ${steady}
     where r.cell = ${said.cell} and not (r.leased and r.steady)`);
}
