/** Which cell each annex stands in, and whose standby it is: those that are gone too, for what is told of the past. */
import { isNotNull } from "drizzle-orm";
import type { AnnexNames } from "../core/shown-hosts.ts";
import type { Reader } from "./database.ts";
import { cell } from "./schema.ts";

export async function readAnnexNames(reader: Reader): Promise<AnnexNames> {
  const rows = await reader
    .select({ id: cell.id, origin: cell.annexOrigin, host: cell.annexHost })
    .from(cell)
    .where(isNotNull(cell.annexHost));
  return new Map(
    rows.map(({ id, origin, host }) => [id, { origin: origin ?? id, host: host ?? id }]),
  );
}
