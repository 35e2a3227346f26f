/** What the server and the mover's role must be able to. Pure: facts in, checks out. */
import { escapeIdentifier } from "pg";
import type { MoveCheck } from "../../contract/move-api.ts";
import { type CheckPlace, listed, passed, refused, warned } from "./check.ts";
import { type StoreFacts, serverMin } from "./facts.ts";

/** Log that one move may make the source keep, beyond what is estimated for its copy. */
const walRoomFactor = 2;

export type ServerNeed = {
  readonly place: CheckPlace;
  readonly side: "source" | "target";
  readonly facts: StoreFacts;
  readonly copyMs: number;
};

export function judgeServer(need: ServerNeed): MoveCheck[] {
  const { place, facts } = need;
  return [
    facts.version >= serverMin
      ? passed("version", place, `PostgreSQL ${facts.versionName}`)
      : refused(
          "version",
          place,
          `PostgreSQL ${facts.versionName} is older than 16, which moves need (origin, pg_create_subscription)`,
          "upgrade the server to PostgreSQL 16 or newer",
        ),
    facts.inRecovery
      ? refused("primary", place, "it is a standby: nothing can be written", "name the primary")
      : passed("primary", place, "it is a primary"),
    judgeRole(need),
    facts.walLevel === "logical"
      ? passed("wal-level", place, "wal_level is logical")
      : refused(
          "wal-level",
          place,
          `wal_level is ${facts.walLevel}`,
          "alter system set wal_level = 'logical'; then restart the server",
        ),
    ...judgeRoom(need),
    judgeWal(need),
    judgeLong(need),
  ];
}

function judgeRole({ place, facts }: ServerNeed): MoveCheck {
  const { role } = facts;
  const name = escapeIdentifier(role.name);
  const missing = [
    ...(role.replicates ? [] : [`alter role ${name} replication;`]),
    ...(role.bypassesRowSecurity ? [] : [`alter role ${name} bypassrls;`]),
    ...(role.maySubscribe ? [] : [`grant pg_create_subscription to ${name};`]),
    ...(role.maySetReplicationRole
      ? []
      : [`grant set on parameter session_replication_role to ${name};`]),
    ...(role.mayCreate ? [] : [`grant create on database NAME to ${name};`]),
    ...(role.actsForPack || !facts.packInstalled
      ? []
      : [`grant cellfleet_owner to ${name} with inherit true, set true;`]),
  ];
  return missing.length === 0
    ? passed("mover-rights", place, `${role.name} may move tenants`)
    : refused(
        "mover-rights",
        place,
        `${role.name} lacks ${missing.length} of the rights that moving needs`,
        missing.join(" "),
      );
}

/** One stream in each direction per store: a slot and a sender to give, a worker to take. */
function judgeRoom({ place, facts }: ServerNeed): MoveCheck[] {
  const rooms = [
    { id: "slots", what: "replication slots", setting: "max_replication_slots", of: facts.slots },
    { id: "wal-senders", what: "WAL senders", setting: "max_wal_senders", of: facts.senders },
    {
      id: "workers",
      what: "logical replication workers",
      setting: "max_logical_replication_workers and max_worker_processes",
      of: facts.workers,
    },
  ];
  return rooms.map(({ id, what, setting, of }) =>
    of.used < of.max
      ? passed(id, place, `${of.max - of.used} of ${of.max} ${what} are free`)
      : refused(
          id,
          place,
          `all ${of.max} ${what} are in use`,
          `end what uses them, or raise ${setting}`,
        ),
  );
}

/** PostgreSQL does not know how large its disk is; what a slot may keep of the log it does. */
function judgeWal({ place, facts, side, copyMs }: ServerNeed): MoveCheck {
  if (facts.strainedSlots.length > 0) {
    return warned(
      "wal-room",
      place,
      `slots have lost log that they need, or are about to: ${listed(facts.strainedSlots)}`,
      "drop slots that nobody reads, or raise max_slot_wal_keep_size",
    );
  }
  const { slotBytesMax } = facts;
  if (side === "target" || slotBytesMax === null) {
    return passed("wal-room", place, "slots may keep as much log as the disk holds");
  }
  const kept = Math.round((facts.walBytesPerSecond * copyMs * walRoomFactor) / 1000);
  return kept <= slotBytesMax
    ? passed(
        "wal-room",
        place,
        `about ${megabytes(kept)} of the ${megabytes(slotBytesMax)} that a slot may keep`,
      )
    : refused(
        "wal-room",
        place,
        `while it is copied about ${megabytes(kept)} of log are written, and a slot may keep ${megabytes(slotBytesMax)}`,
        "raise max_slot_wal_keep_size, and reload the configuration",
      );
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MB`;

/** A slot is made only when every transaction has ended that writes now: of any tenant, in any database. */
function judgeLong({ place, facts }: ServerNeed): MoveCheck {
  const { longTransactions: long } = facts;
  if (long.length === 0)
    return passed("long-transactions", place, "no transaction has been open for long");
  const who = long.map(({ pid, seconds, user }) => `${pid} (${user}, ${Math.round(seconds)} s)`);
  return warned(
    "long-transactions",
    place,
    `the move's slot waits until these transactions have ended: ${listed(who)}`,
    long.map(({ pid }) => `select pg_terminate_backend(${pid});`).join(" "),
  );
}
