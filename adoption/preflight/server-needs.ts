/**
 * What the server of a cell's database has to be like: version, write-ahead log, room for replication,
 * limits that keep a forgotten transaction from holding a tenant for ever.
 *
 * Pure: facts in, items out. Each says what is needed, why, and how this platform mends it.
 */
import { type ServerFacts, versionMin } from "./facts.ts";
import { judged, type PreflightItem, serverNeed as server, unseen } from "./item.ts";
import { setForRole, setServer } from "./remedy.ts";
import { type Rule, replicationMin, rules } from "./setting-rules.ts";

const versionRecommended = 180_000;
/** Agents (two each), a move, an export, a person who looks. */
const connectionsFreeMin = 10;
const connectionsUsedShareMax = 0.8;
const transactionMsMax = 300_000;

/** All that `readServerFacts` has to be asked for. */
export const settingsRead: readonly string[] = [
  ...new Set([
    ...rules.map(({ setting }) => setting),
    "statement_timeout",
    "transaction_timeout",
    "max_worker_processes",
    "max_parallel_workers",
    "max_logical_replication_workers",
    "max_prepared_transactions",
  ]),
];

/** `appRole`: limits are best set for the one role whose transactions hold tenants. */
export function judgeServer(facts: ServerFacts, appRole: string | undefined): PreflightItem[] {
  return [
    ...version(facts),
    primary(facts),
    ...rules.map((rule) => judgeSetting(facts, rule, appRole)),
    slots(facts),
    workers(facts),
    longest(facts, appRole),
    prepared(facts),
    connections(facts),
    encoding(facts),
    collation(facts),
  ];
}

function judgeSetting(facts: ServerFacts, rule: Rule, appRole: string | undefined): PreflightItem {
  const value = facts.settings[rule.setting];
  if (value === undefined) return unseen(rule.need, `this server does not tell ${rule.setting}`);
  const waits = facts.pendingRestart.includes(rule.setting)
    ? ", changed but not restarted yet"
    : "";
  return judged(rule.need, {
    ok: rule.isFit(value),
    text: `${rule.setting} = ${value}${waits}`,
    fix:
      waits === ""
        ? limitFor(appRole, facts, rule)
        : "restart the server: the new value waits for it",
  });
}

/** A limit on transactions is the application's own where its role is known; else the server's. */
function limitFor(
  appRole: string | undefined,
  { platform }: ServerFacts,
  { setting, value, restart }: Pick<Rule, "setting" | "value" | "restart">,
): string {
  return appRole !== undefined && setting.endsWith("_timeout") && setting !== "wal_sender_timeout"
    ? setForRole(appRole, setting, value)
    : setServer(platform, setting, value, { restart });
}

function version({ version: number, versionName }: ServerFacts): PreflightItem[] {
  const text = `PostgreSQL ${versionName}`;
  return [
    judged(
      server(
        "version",
        "must",
        "PostgreSQL 16 or newer",
        "older ones need a superuser to replicate",
      ),
      { ok: number >= versionMin, text, fix: "upgrade to PostgreSQL 16 or newer" },
    ),
    judged(
      server("version-recommended", "should", "PostgreSQL 18", "what Cellfleet is measured with"),
      { ok: number >= versionRecommended, text, fix: "plan the upgrade to PostgreSQL 18" },
    ),
  ];
}

const primary = ({ isReplica }: ServerFacts): PreflightItem =>
  judged(server("primary", "must", "a primary", "the guard is installed where writes happen"), {
    ok: !isReplica,
    text: isReplica ? "this is a replica" : "a primary",
    fix: "give the address of the primary",
  });

function slots({ slots: { used, lost }, settings }: ServerFacts): PreflightItem {
  const free = Number(settings["max_replication_slots"] ?? 0) - used;
  return judged(
    server("free-slots", "should", "4 free, none lost", "slots of others count against the limit"),
    {
      ok: free >= replicationMin && lost.length === 0,
      text: `${used} used, ${Math.max(0, free)} free${lost.length > 0 ? `, lost: ${lost.join(", ")}` : ""}`,
      fix:
        lost.length > 0
          ? "select pg_drop_replication_slot(slot_name) from pg_replication_slots where wal_status = 'lost';"
          : "drop slots that nobody reads, or raise max_replication_slots",
    },
  );
}

/** Replication workers and parallel workers come out of the same pot. */
function workers({ settings, platform }: ServerFacts): PreflightItem {
  const all = Number(settings["max_worker_processes"] ?? 0);
  const logical = Number(settings["max_logical_replication_workers"] ?? 0);
  const parallel = Number(settings["max_parallel_workers"] ?? 0);
  // One more is the launcher of logical replication.
  const wanted = logical + parallel + 1;
  return judged(
    server(
      "worker-processes",
      "should",
      `${wanted} or more: replication and parallel workers together`,
      "a parallel query can take the worker that a move waits for",
    ),
    {
      ok: all >= wanted,
      text: `max_worker_processes = ${all}; ${logical} for replication, ${parallel} for parallel queries`,
      fix: setServer(platform, "max_worker_processes", String(wanted), { restart: true }),
    },
  );
}

/** Fencing waits for the tenant's writers: what has no limit can hold a move up for ever. */
function longest(facts: ServerFacts, appRole: string | undefined): PreflightItem {
  const { settings, version: number } = facts;
  const statement = Number(settings["statement_timeout"] ?? 0);
  const transaction = Number(settings["transaction_timeout"] ?? 0);
  const bound = [statement, transaction].filter((ms) => ms > 0);
  const knowsTransaction = number >= 170_000;
  return judged(
    server(
      "transaction-limit",
      "should",
      "statement_timeout or transaction_timeout, at most 5 min",
      "a tenant is fenced only when its last transaction has ended",
    ),
    {
      ok: bound.some((ms) => ms <= transactionMsMax),
      text: `statement_timeout = ${statement} ms${knowsTransaction ? `, transaction_timeout = ${transaction} ms` : ""}`,
      fix: limitFor(appRole, facts, {
        setting: knowsTransaction ? "transaction_timeout" : "statement_timeout",
        value: "60s",
        restart: false,
      }),
    },
  );
}

function prepared({ settings, preparedTransactions, platform }: ServerFacts): PreflightItem {
  const max = Number(settings["max_prepared_transactions"] ?? 0);
  return judged(
    server(
      "prepared-transactions",
      "should",
      "max_prepared_transactions = 0",
      "a prepared transaction holds its tenant's lock without a session, for days if forgotten",
    ),
    {
      ok: max === 0,
      text: `max_prepared_transactions = ${max}, ${preparedTransactions} prepared now`,
      fix: setServer(platform, "max_prepared_transactions", "0", { restart: true }),
    },
  );
}

function connections({ connections: { used, max, reserved }, platform }: ServerFacts) {
  const open = Math.max(0, max - reserved);
  const free = Math.max(0, open - used);
  const ok = free >= connectionsFreeMin && used <= open * connectionsUsedShareMax;
  return judged(
    server(
      "connections",
      free >= connectionsFreeMin ? "should" : "must",
      `${connectionsFreeMin} free, and at most 80 % used`,
      "agents and moves connect too; without a connection the lease is not renewed and the cell stops",
    ),
    {
      ok,
      text: `${used} of ${open} used, ${free} free`,
      fix: `put a pooler in front of the application, or ${setServer(platform, "max_connections", String(max + 100), { restart: true })}`,
    },
  );
}

const encoding = ({ encoding: found }: ServerFacts): PreflightItem =>
  judged(server("encoding", "must", "UTF8", "ids of tenants are compared byte by byte as UTF-8"), {
    ok: found === "UTF8",
    text: found,
    fix: "dump the database and restore it into one created with encoding 'UTF8'",
  });

function collation({ collation: { recorded, actual } }: ServerFacts): PreflightItem {
  // A provider that keeps no versions says null.
  const versions = new Set([recorded, actual].filter((version) => version !== null));
  const ok = versions.size < 2;
  return judged(
    server(
      "collation",
      "must",
      "the version that the indexes were built with",
      "with another one, indexes over text miss rows: a move would leave them behind",
    ),
    {
      ok,
      text: ok ? `version ${actual ?? "not kept"}` : `indexes of ${recorded}, library ${actual}`,
      fix: "reindex database concurrently; then alter database NAME refresh collation version;",
    },
  );
}
