/** Placement keys of a cell under which a tenant of tier gold is served. */
import { sql } from "drizzle-orm";
import type { PlacementKey } from "../../contract/placement-key.ts";
import type { Reader } from "./database.ts";

/** As many as one answer to an agent names. */
export const goldKeysMax = 100_000;

/** A container with one such tenant counts as a whole: to wait once too often loses nothing. */
export async function readGoldKeys(reader: Reader, cell: string): Promise<readonly PlacementKey[]> {
  const { rows } = await reader.execute<{ key: PlacementKey }>(sql`
    select distinct p.key
      from cellfleet_control.tenant t
      join cellfleet_control.placement p on p.key = t.placement_key
     where t.tier = 'gold' and p.cell = ${cell} and p.state <> 'deleting'
     order by p.key
     limit ${goldKeysMax}`);
  return rows.map(({ key }) => key);
}
