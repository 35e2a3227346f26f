/**
 * Settings of a server that are right or wrong by their value alone: what a cell's database needs of
 * each, why, and what to set it to.
 */
import { type Need, serverNeed as server } from "./item.ts";

/** Each move and each standby is a slot, a sender and a worker. */
export const replicationMin = 4;
const replicationRecommended = 10;
const idleMsMax = 60_000;

export type Rule = {
  readonly need: Need;
  readonly setting: string;
  /** What to set it to. */
  readonly value: string;
  readonly restart: boolean;
  readonly isFit: (value: number | string) => boolean;
};

const numberAtLeast = (least: number) => (value: number | string) => Number(value) >= least;
const oneOf =
  (...texts: readonly string[]) =>
  (value: number | string) =>
    texts.includes(String(value));
/** 0 means without a limit. */
const limited = (max: number) => (value: number | string) =>
  Number(value) > 0 && Number(value) <= max;

const room = (
  id: string,
  setting: string,
  what: string,
  [least, better]: readonly [number, number],
): readonly Rule[] => [
  {
    need: server(id, "must", `at least ${least}`, `${what}; none free, no move and no standby`),
    setting,
    value: String(better),
    restart: true,
    isFit: numberAtLeast(least),
  },
  {
    need: server(`${id}-room`, "should", `${better} or more`, `${what}, several at a time`),
    setting,
    value: String(better),
    restart: true,
    isFit: numberAtLeast(better),
  },
];

export const rules: readonly Rule[] = [
  {
    need: server(
      "wal-level",
      "must",
      "wal_level = logical",
      "moves and standbys read the changes of single tenants from the write-ahead log",
    ),
    setting: "wal_level",
    value: "logical",
    restart: true,
    isFit: oneOf("logical"),
  },
  ...room("replication-slots", "max_replication_slots", "a move or standby holds one slot", [
    replicationMin,
    replicationRecommended,
  ]),
  ...room("wal-senders", "max_wal_senders", "a move or standby holds one sender", [
    replicationMin,
    replicationRecommended,
  ]),
  ...room(
    "logical-workers",
    "max_logical_replication_workers",
    "a tenant that moves in needs one worker",
    [2, 8],
  ),
  {
    need: server(
      "slot-keep-size",
      "should",
      "a limit",
      "a slot that nobody reads keeps the log until the disk is full",
    ),
    setting: "max_slot_wal_keep_size",
    value: "50GB",
    restart: false,
    isFit: (value) => Number(value) >= 0,
  },
  {
    need: server(
      "wal-sender-timeout",
      "should",
      "above 0, at most 60s",
      "a partner that is gone must be noticed, or its slot stays busy",
    ),
    setting: "wal_sender_timeout",
    value: "60s",
    restart: false,
    isFit: limited(60_000),
  },
  {
    need: server(
      "durability-fsync",
      "must",
      "fsync = on",
      "an acknowledged write must survive a crash",
    ),
    setting: "fsync",
    value: "on",
    restart: false,
    isFit: oneOf("on"),
  },
  {
    need: server(
      "durability-full-page-writes",
      "must",
      "full_page_writes = on",
      "an acknowledged write must survive a crash",
    ),
    setting: "full_page_writes",
    value: "on",
    restart: false,
    isFit: oneOf("on"),
  },
  {
    need: server(
      "synchronous-commit",
      "should",
      "on",
      "with it off, a crash loses writes that were acknowledged",
    ),
    setting: "synchronous_commit",
    value: "on",
    restart: false,
    isFit: oneOf("on", "local", "remote_write", "remote_apply"),
  },
  {
    need: server(
      "replication-role",
      "must",
      "session_replication_role = origin",
      "any other value switches the guard's triggers off",
    ),
    setting: "session_replication_role",
    value: "origin",
    restart: false,
    isFit: oneOf("origin"),
  },
  {
    need: server(
      "idle-in-transaction",
      "should",
      "at most 60s",
      "an application that dies inside a transaction holds its tenant's lock: the tenant cannot move",
    ),
    setting: "idle_in_transaction_session_timeout",
    value: "60s",
    restart: false,
    isFit: limited(idleMsMax),
  },
  {
    need: server(
      "password-encryption",
      "should",
      "scram-sha-256",
      "md5 hashes of passwords can be used as they are by whoever reads them",
    ),
    setting: "password_encryption",
    value: "scram-sha-256",
    restart: false,
    isFit: oneOf("scram-sha-256"),
  },
  {
    need: server(
      "time-zone",
      "should",
      "UTC",
      "two cells with two time zones store one moment as two local times",
    ),
    setting: "TimeZone",
    value: "UTC",
    restart: false,
    isFit: oneOf("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "Universal", "UCT"),
  },
  {
    need: server(
      "io-timing",
      "should",
      "track_io_timing = on",
      "without it nobody can tell a slow disk from a slow query",
    ),
    setting: "track_io_timing",
    value: "on",
    restart: false,
    isFit: oneOf("on"),
  },
];
