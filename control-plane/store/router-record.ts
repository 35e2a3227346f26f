/** What a router said when it called last: its acknowledgement. */
import { sql } from "drizzle-orm";
import type { RouterSyncRequest } from "../../contract/cell-protocol.ts";
import type { Reader } from "./database.ts";
import { channels } from "./notify.ts";
import { router } from "./schema.ts";

export async function recordRouter(reader: Reader, request: RouterSyncRequest): Promise<void> {
  const said = {
    instance: request.instance,
    admin: request.admin,
    revision: request.revision,
    epochMax: request.epochMax,
    checksum: request.checksum,
    release: request.release,
    seenAt: sql`clock_timestamp()`,
  };
  await reader
    .insert(router)
    .values({ id: request.router, ...said })
    .onConflictDoUpdate({ target: router.id, set: said });
}

/** An operation may be waiting for this acknowledgement. */
export async function announceAcknowledgement(reader: Reader): Promise<void> {
  await reader.execute(sql`select pg_notify(${channels.op}, '')`);
}
