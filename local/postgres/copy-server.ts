/**
 * A server that follows another one: made from a base backup, and, once it was promoted, a server of its own.
 *
 * What must always be true: a folder is either whole, with its mark, or made anew; the slot that keeps the
 * log for it stands before the first byte is copied; whatever the source's databases subscribe to, the copy
 * never does, not even in the moment of its promotion: those streams are the source's.
 */
import { access, chown, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import type { Clock } from "../../runtime/clock.ts";
import { takeBaseBackup } from "./base-backup.ts";
import type { Installation } from "./binaries.ts";
import { dataDirOf, passwordFileOf } from "./server.ts";
import { removeServer } from "./template.ts";

export type CopiedServer = {
  readonly folder: string;
  readonly source: {
    /** As superuser, into any database. */
    readonly url: string;
    /** Of the superuser, who has the same password in the copy. */
    readonly password: string;
    /** How the copy reaches it, as libpq reads it. */
    readonly connection: string;
  };
  /** Of the source, which keeps the log for this copy. */
  readonly slot: string;
  readonly installation: Installation;
  readonly clock: Clock;
};

/** In `local.conf`; what stands behind it goes when the copy has become a server of its own. */
const followingMark = "# While this server follows another one:";
const followingSettings = [
  followingMark,
  // Subscriptions are copied too. Their workers would come up with the promotion, at slots that are not theirs.
  "max_logical_replication_workers = 0",
  // Whoever reads here does not hold up what a failover waits for.
  "max_standby_streaming_delay = '1s'",
  "wal_receiver_timeout = '5s'",
  "",
].join("\n");

/**
 * Makes `folder` a server that was never started and follows the source from its first start on. PostgreSQL
 * brings all of it to the disk in that start, as after a crash: until then it is not to be counted on.
 */
export async function copyServer(copied: CopiedServer): Promise<void> {
  const { folder, source, slot, installation, clock } = copied;
  await removeServer(folder, clock);
  const mode = installation.runAs === undefined ? 0o700 : 0o711;
  await mkdir(folder, { recursive: true, mode });
  const dataDir = dataDirOf(folder);
  await mkdir(dataDir, { mode: 0o700 });
  await giveTo(dataDir, installation);
  await renewSlot(source.url, slot);
  await takeBaseBackup({ url: source.url, name: slot }, dataDir, installation);
  const local = await readFile(join(dataDir, "local.conf"), "utf8").catch(() => "");
  const auto = await readFile(join(dataDir, "postgresql.auto.conf"), "utf8").catch(() => "");
  await writeFiles(dataDir, installation, {
    "local.conf": `${withoutFollowing(local)}${followingSettings}`,
    // As ALTER SYSTEM writes it, which is how it is emptied before the promotion.
    "postgresql.auto.conf": `${auto}primary_conninfo = ${quoted(source.connection)}\nprimary_slot_name = ${quoted(slot)}\n`,
    "standby.signal": "",
  });
  await writeFile(passwordFileOf(folder), `${source.password}\n`, { mode: 0o600 });
}

/** Of a server that was promoted and stands still: from its next start on it is like any other. */
export async function endFollowing(folder: string, installation: Installation): Promise<void> {
  const dataDir = dataDirOf(folder);
  const local = await readFile(join(dataDir, "local.conf"), "utf8").catch(() => "");
  await writeFiles(dataDir, installation, { "local.conf": withoutFollowing(local) });
}

/** By what it has written down itself before its promotion; of a folder without a server: no. */
export async function wasCutOff(folder: string): Promise<boolean> {
  const dataDir = dataDirOf(folder);
  const auto = await readFile(join(dataDir, "postgresql.auto.conf"), "utf8").catch(() => undefined);
  if (auto === undefined) return false;
  if (/^primary_conninfo = ''$/m.test(auto)) return true;
  return access(join(dataDir, "standby.signal")).then(
    () => false,
    () => true,
  );
}

/** Does the source still keep everything that the copy needs? */
export async function hasSlot(url: string, slot: string): Promise<boolean> {
  return withClient(url, async (client) => {
    const { rowCount } = await client.query(
      "select from pg_replication_slots where slot_name = $1 and slot_type = 'physical' and wal_status <> 'lost'",
      [slot],
    );
    return rowCount === 1;
  });
}

/** A slot of an earlier copy begins where that one stood, or nowhere any more. */
async function renewSlot(url: string, slot: string): Promise<void> {
  await withClient(url, async (client) => {
    await client.query(
      "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = $1 and active_pid is not null",
      [slot],
    );
    await client.query(
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1",
      [slot],
    );
    await client.query("select pg_create_physical_replication_slot($1, true)", [slot]);
  });
}

const withoutFollowing = (text: string): string => text.split(followingMark)[0] ?? "";

const quoted = (value: string): string =>
  `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;

async function writeFiles(
  dataDir: string,
  installation: Installation,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(dataDir, name);
    await rm(path, { force: true });
    await writeFile(path, text, { mode: 0o600 });
    await giveTo(path, installation);
  }
}

async function giveTo(path: string, { runAs }: Installation): Promise<void> {
  if (runAs !== undefined) await chown(path, runAs.uid, runAs.gid);
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  client.on("error", () => {}); // Reported by the query that fails.
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
