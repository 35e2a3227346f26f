/** The revision up to which everything is committed. */
import { must } from "../../runtime/assert.ts";
import type { Reader } from "./database.ts";
import { fleet } from "./schema.ts";

export async function readFleetRevision(reader: Reader): Promise<number> {
  const [row] = await reader.select({ revision: fleet.revision }).from(fleet);
  return must(row, "fleet row").revision;
}
