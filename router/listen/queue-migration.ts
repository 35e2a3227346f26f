/**
 * Several processes on one address: Linux gives each listener a queue of its own, and whoever waits in
 * it when it is closed is reset, unless the host says that the queue goes to the others. That is the
 * host's to say; ours is to tell.
 */
import { readFile } from "node:fs/promises";

export const migrationSetting = "net.ipv4.tcp_migrate_req";

/** False: connections that wait when this process ends its listeners are reset. */
export async function isQueueMigrated(): Promise<boolean> {
  try {
    const path = `/proc/sys/${migrationSetting.replaceAll(".", "/")}`;
    return (await readFile(path, "utf8")).trim() === "1";
  } catch {
    return false; // An older kernel, or another system.
  }
}
