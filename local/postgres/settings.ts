/**
 * How a local server is configured: sized for a dozen servers on one laptop, ready for logical
 * replication, reachable on the loopback address by password only.
 *
 * Pure: what a server of version N is told. A setting that a version does not know is not written,
 * because PostgreSQL refuses to start with an unknown one.
 */
export type ServerSettings = {
  readonly name: string;
  readonly port: number;
  readonly major: number;
  /** False for throw-away servers: a crash of the machine may lose them, a crash of the server may not. */
  readonly durable: boolean;
};

type Setting = readonly [name: string, value: string, since?: number];

export function settingsText(server: ServerSettings): string {
  const lines = [...general(server), ...(server.durable ? [] : careless)]
    .filter(([, , since]) => since === undefined || server.major >= since)
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
  return [
    "# Written at every start by cellfleet; put settings of your own into local.conf.",
    ...lines,
    "include_if_exists 'local.conf'",
    "",
  ].join("\n");
}

const general = ({ name, port }: ServerSettings): readonly Setting[] => [
  ["cluster_name", name],
  ["listen_addresses", "127.0.0.1"],
  ["port", String(port)],
  // Data folders may lie deeper than the 107 bytes of a socket's path; TCP with scram does for all.
  ["unix_socket_directories", ""],
  ["password_encryption", "scram-sha-256"],
  // Of the cell itself, of the annexes beside it, of moves into and out of all of them.
  ["max_connections", "200"],
  // Each store of a standby, and each move, is one sender, slot, worker and origin, while its tables
  // are copied two more: three standbys out, six in, eight moves, of an application with two stores.
  ["wal_level", "logical"],
  ["max_wal_senders", "64"],
  ["max_replication_slots", "64"],
  ["max_active_replication_origins", "64", 18],
  ["max_worker_processes", "48"],
  ["max_logical_replication_workers", "40"],
  ["max_sync_workers_per_subscription", "2"],
  // A retry after 5 s (the default) would be the pause of a move.
  ["wal_retrieve_retry_interval", "200ms"],
  // A forgotten slot must not fill the disk.
  ["max_slot_wal_keep_size", "1GB"],
  ["track_commit_timestamp", "on"],
  // Small: nine megabytes per idle server, measured.
  ["shared_buffers", "16MB"],
  ["huge_pages", "off"],
  ["jit", "off"],
  ["max_parallel_workers", "0"],
  ["autovacuum_max_workers", "1"],
  ["min_wal_size", "32MB"],
  ["max_wal_size", "256MB"],
  ["io_method", "sync", 18],
  ["timezone", "UTC"],
  ["log_timezone", "UTC"],
  ["log_line_prefix", "%m [%p] %q%u@%d "],
  ["log_checkpoints", "off"],
];

const careless: readonly Setting[] = [
  ["fsync", "off"],
  ["full_page_writes", "off"],
];

/** Password for everybody, also for replication; nobody from elsewhere, and no `trust` for anybody. */
export const hostAccessText = [
  "# Written at every start by cellfleet.",
  "host all all 127.0.0.1/32 scram-sha-256",
  "host replication all 127.0.0.1/32 scram-sha-256",
  "",
].join("\n");

/** The same text order on every machine: libc's own locales differ between Linux and macOS. */
export const initdbArguments = (major: number): readonly string[] => [
  "--encoding=UTF8",
  "--auth=scram-sha-256",
  "--no-instructions",
  "--wal-segsize=1",
  ...(major >= 17
    ? ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    : ["--locale=C"]),
];
