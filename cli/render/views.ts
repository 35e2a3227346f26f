/** How the fleet's objects look to people: columns of tables, and one object in full. */
import type { z } from "zod";
import type {
  auditEntrySchema,
  auditVerdictSchema,
  Cell,
  FleetStatus,
  Keyspace,
  overrideSchema,
  resolutionSchema,
  routerSchema,
  Tenant,
  tokenSchema,
} from "../../contract/control-api.ts";
import type { FleetEvent } from "../../contract/event-api.ts";
import type { Explanation } from "../../contract/explanation.ts";
import { wayOf } from "./move-ends.ts";
import type { View } from "./output.ts";
import { age, bytes, count, counted, duration } from "./units.ts";

const used = (now: number, max: number): string => `${count(now)}/${count(max)}`;
const storeText = ({ kind, database, keyColumn, hook, ignore }: Cell["stores"][string]): string => {
  if (kind !== "external") return `${database}  key column ${keyColumn}`;
  if (ignore === true || hook === undefined) return "external  stays behind";
  const what = "url" in hook ? hook.url : `command ${hook.command}`;
  return `external  hook ${what}  within ${duration(hook.timeoutMs)}`;
};

const lease = (cell: Cell): string => (cell.lease.mode === undefined ? timedLease(cell) : "manual");

/** Of one that does not end by itself what was granted last says little. */
const leaseInFull = (cell: Cell): string => {
  const { mode, settled, grant } = cell.lease;
  if (mode === undefined) return `${timedLease(cell)} (grant ${grant})`;
  const until = settled === true ? "" : `; the cell has not acknowledged yet: ${mode}`;
  return `manual (grant ${grant}${until}); nobody takes over before somebody has seen it powered off`;
};

const timedLease = (cell: Cell): string =>
  cell.lease.outstandingMs > 0 ? duration(cell.lease.outstandingMs) : "none";

const failingOver = ({ failover }: Cell): ReadonlyArray<readonly [string, string]> =>
  failover === undefined
    ? []
    : [
        [
          "failover",
          `${failover.mode}, ${failover.step}   (cellctl failover watch ${failover.id})`,
        ],
      ];

export const cellView: View<Cell> = {
  id: (cell) => cell.id,
  columns: [
    { head: "CELL", cell: ({ id }) => id },
    { head: "REGION", cell: ({ region }) => region },
    { head: "STATE", cell: ({ state }) => state, state: true },
    { head: "GOAL", cell: ({ goal }) => goal },
    { head: "HEALTH", cell: ({ health }) => health, state: true },
    { head: "STAGE", cell: ({ stage }) => stage },
    { head: "TENANTS", cell: ({ usage, capacity }) => used(usage.tenants, capacity.tenants) },
    { head: "RPS", cell: ({ usage, capacity }) => used(usage.rps, capacity.rps), wide: true },
    {
      head: "BYTES",
      cell: ({ usage, capacity }) => `${bytes(usage.bytes)}/${bytes(capacity.bytes)}`,
      wide: true,
    },
    { head: "LEASE", cell: lease },
    { head: "FAILOVER", cell: ({ failover }) => failover?.step ?? "", wide: true },
    { head: "WOULD-REFUSE", cell: ({ wouldRefuse }) => refusals(wouldRefuse), wide: true },
    { head: "AGENTS", cell: ({ agents }) => String(agents.length), right: true, wide: true },
    { head: "RELEASE", cell: ({ release }) => release, wide: true },
    { head: "SCHEMA", cell: ({ schemaVersion }) => schemaVersion, wide: true },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
  details: (cell, nowMs) => [
    ["cell", cell.id],
    ["state", cell.state],
    ["goal", cell.goal],
    ["health", cell.health],
    ["why", cell.healthReason],
    ...failingOver(cell),
    ["stage", cell.stage],
    ...(cell.adopted === true
      ? ([
          ["guarded tables", String(cell.guardedTables ?? 0)],
          ["would refuse", refusals(cell.wouldRefuse) || "nothing so far"],
        ] as const)
      : []),
    ...(cell.adopted === true || (cell.unclassed?.count ?? 0) > 0
      ? ([["unclassed", forgotten(cell)]] as const)
      : []),
    ["region", cell.region],
    ["failure domain", cell.failureDomain],
    ["provider", cell.provider],
    ["tiers", cell.tiers.length === 0 ? "all" : cell.tiers.join(", ")],
    ["dedicated", cell.dedicated ? "only tenants created for it by name" : "no"],
    ["tenants", used(cell.usage.tenants, cell.capacity.tenants)],
    ["requests/s", used(cell.usage.rps, cell.capacity.rps)],
    ["bytes", `${bytes(cell.usage.bytes)}/${bytes(cell.capacity.bytes)}`],
    ["lease", leaseInFull(cell)],
    ["release", cell.release],
    ["schema", cell.schemaVersion],
    [
      "services",
      Object.entries(cell.services).map(
        ([name, { endpoints }]) => `${name}  ${endpoints.join(" ")}`,
      ),
    ],
    ["stores", Object.entries(cell.stores).map(([name, store]) => `${name}  ${storeText(store)}`)],
    [
      "agents",
      cell.agents.map(
        ({ instance, endpoint, primary, seenMs }) =>
          `${instance}  ${endpoint}  ${primary ? "primary" : "secondary"}  heard ${duration(seenMs)} ago`,
      ),
    ],
    ["created", `${cell.createdAt} (${age(cell.createdAt, nowMs)} ago)`],
  ],
};

export const tenantView: View<Tenant> = {
  id: (tenant) => tenant.id,
  columns: [
    { head: "TENANT", cell: ({ id }) => id },
    { head: "KEYSPACE", cell: ({ keyspace }) => keyspace },
    { head: "CELL", cell: ({ placement }) => placement.cell },
    { head: "EPOCH", cell: ({ placement }) => String(placement.epoch), right: true },
    { head: "STATE", cell: ({ placement }) => placement.state, state: true },
    { head: "TIER", cell: ({ tier }) => tier },
    { head: "REGION", cell: ({ region }) => region ?? "", wide: true },
    { head: "ROWS", cell: ({ measured }) => count(measured.rows), right: true, wide: true },
    { head: "BYTES", cell: ({ measured }) => bytes(measured.bytes), right: true, wide: true },
    { head: "RPS", cell: ({ measured }) => count(measured.rps), right: true, wide: true },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
  details: (tenant, nowMs) => [
    ["tenant", tenant.id],
    ["keyspace", tenant.keyspace],
    ["tier", tenant.tier],
    ["region", tenant.region ?? "any"],
    ["cell", ownerText(tenant.placement)],
    ["key", tenant.placement.key],
    ["epoch", String(tenant.placement.epoch)],
    ["state", tenant.placement.state],
    ["revision", String(tenant.placement.revision)],
    ...moving(tenant),
    ["declared", `${bytes(tenant.size.bytes)}, ${count(tenant.size.rps)} requests/s`],
    [
      "measured",
      `${count(tenant.measured.rows)} rows, ${bytes(tenant.measured.bytes)}, ${count(tenant.measured.rps)} requests/s`,
    ],
    ["labels", Object.entries(tenant.labels).map(([name, value]) => `${name}=${value}`)],
    ["created", `${tenant.createdAt} (${age(tenant.createdAt, nowMs)} ago)`],
  ],
};

/** Until it is moved into the cell itself it has no standby of its own. */
const ownerText = ({
  cell,
  annex,
}: {
  readonly cell: string;
  readonly annex?: string | undefined;
}): string => (annex === undefined ? cell : `${cell} (in the standby that took it over)`);

/** A line where the key is part of an open move. */
const moving = ({ move }: Pick<Tenant, "move">): ReadonlyArray<readonly [string, string]> =>
  move === undefined
    ? []
    : [["move", `${move.id}  ${move.step}  ${wayOf(move)}   (cellctl move show ${move.id})`]];

export const keyspaceView: View<Keyspace> = {
  id: (keyspace) => keyspace.name,
  columns: [
    { head: "KEYSPACE", cell: ({ name }) => name },
    { head: "STRATEGY", cell: ({ strategy }) => strategy },
    { head: "GUARD", cell: ({ guardMode }) => guardMode },
    {
      head: "PARTS",
      cell: ({ strategy, slotCount, ranges }) =>
        strategy === "slots"
          ? counted(slotCount ?? 0, "slot")
          : strategy === "range"
            ? counted(ranges.length, "range")
            : "",
    },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
};

export const overrideView: View<z.infer<typeof overrideSchema>> = {
  id: (override) => override.id,
  columns: [
    { head: "OVERRIDE", cell: ({ id }) => id },
    { head: "TENANT", cell: ({ tenant }) => tenant },
    { head: "CELL", cell: ({ cell }) => cell },
    { head: "EPOCH", cell: ({ epoch }) => String(epoch), right: true },
    { head: "CONTAINER", cell: ({ container }) => container },
  ],
};

export const resolutionView: View<z.infer<typeof resolutionSchema>> = {
  id: ({ cell }) => cell,
  columns: [
    { head: "TENANT", cell: ({ tenant }) => tenant },
    { head: "CELL", cell: ({ cell }) => cell },
    { head: "EPOCH", cell: ({ epoch }) => String(epoch), right: true },
    { head: "STATE", cell: ({ state }) => state, state: true },
    { head: "KEY", cell: ({ key }) => key },
    { head: "REVISION", cell: ({ revision }) => String(revision), right: true },
    { head: "MOVE", cell: ({ move }) => move?.id ?? "", wide: true },
  ],
};

/** With how it was found: `route resolve --explain`. */
export const resolutionTraceView: View<z.infer<typeof resolutionSchema>> = {
  ...resolutionView,
  details: (found) => [
    ["tenant", found.tenant],
    ["keyspace", found.keyspace],
    ["key", found.key],
    ["cell", ownerText(found)],
    ["epoch", String(found.epoch)],
    ["state", found.state],
    ["revision", String(found.revision)],
    ...moving(found),
    ...(found.unserved === undefined ? [] : [["not served", found.unserved.reason] as const]),
    ["found by", found.trace],
  ],
};

/** `TENANT_MISSING 3, TENANT_UNKNOWN 12`. */
/** Tables that neither the guard nor the manifest knows, one a line. */
function forgotten({ unclassed }: Cell): string | string[] {
  if (unclassed === undefined) return "not told by its agent yet";
  const { count: all, names } = unclassed;
  if (all === 0) return "no table";
  const more = all > names.length ? [`and ${all - names.length} more`] : [];
  return [`${counted(all, "table")}; cellctl schema check`, ...names, ...more];
}

const refusals = (counts: Readonly<Record<string, number>> = {}): string =>
  Object.entries(counts)
    .filter(([, times]) => times > 0)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, times]) => `${code} ${count(times)}`)
    .join(", ");

export const routerView: View<z.infer<typeof routerSchema>> = {
  id: (router) => router.id,
  columns: [
    { head: "ROUTER", cell: ({ id }) => id },
    { head: "LIVE", cell: ({ live }) => (live ? "yes" : "no"), state: true },
    { head: "REVISION", cell: ({ revision }) => String(revision), right: true },
    { head: "BEHIND", cell: ({ behind }) => String(behind), right: true },
    { head: "HEARD", cell: ({ seenMs }) => `${duration(seenMs)} ago` },
    { head: "WOULD-REFUSE", cell: ({ wouldRefuse }) => refusals(wouldRefuse), wide: true },
    { head: "ADMIN", cell: ({ admin }) => admin },
    { head: "INSTANCE", cell: ({ instance }) => instance, wide: true },
    { head: "RELEASE", cell: ({ release }) => release, wide: true },
  ],
};

const eventObject = ({ object, standby }: FleetEvent): string =>
  standby === undefined ? object : `${standby.host} (standby of ${standby.origin})`;

export const eventView: View<FleetEvent> = {
  id: ({ id }) => String(id),
  columns: [
    { head: "TIME", cell: ({ at }) => at },
    { head: "KIND", cell: ({ kind }) => kind },
    { head: "OBJECT", cell: eventObject },
    { head: "ID", cell: ({ id }) => String(id), right: true, wide: true },
    { head: "TEXT", cell: ({ text }) => text },
  ],
};

export const auditView: View<z.infer<typeof auditEntrySchema>> = {
  id: ({ id }) => String(id),
  columns: [
    { head: "ID", cell: ({ id }) => String(id), right: true },
    { head: "TIME", cell: ({ at }) => at },
    { head: "ACTOR", cell: ({ actor }) => actor },
    { head: "ROLE", cell: ({ role }) => role, wide: true },
    { head: "ACTION", cell: ({ action }) => action },
    { head: "OBJECT", cell: ({ object }) => object },
    { head: "OUTCOME", cell: ({ outcome }) => outcome },
    { head: "HASH", cell: ({ hash }) => hash.slice(0, 12), wide: true },
    { head: "REASON", cell: ({ reason }) => reason },
  ],
};

export const auditVerdictView: View<z.infer<typeof auditVerdictSchema>> = {
  id: ({ head }) => head,
  columns: [{ head: "HEAD", cell: ({ head }) => head }],
  details: (verdict) => [
    ["verdict", verdict.ok ? "ok" : "failed"],
    ["entries", String(verdict.entries)],
    ["head", verdict.head],
    ...(verdict.brokenAt === null ? [] : [["broken at", String(verdict.brokenAt)] as const]),
    ["text", verdict.text],
  ],
};

export const tokenView: View<z.infer<typeof tokenSchema>> = {
  id: ({ id }) => id,
  columns: [
    { head: "TOKEN", cell: ({ id }) => id },
    { head: "NAME", cell: ({ name }) => name },
    { head: "ROLE", cell: ({ role }) => role },
    { head: "SUBJECT", cell: ({ subject }) => subject ?? "" },
    { head: "EXPIRES", cell: ({ expiresAt }) => expiresAt ?? "never" },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
};

export const statusView: View<FleetStatus> = {
  id: ({ fleet }) => fleet,
  columns: [{ head: "FLEET", cell: ({ fleet }) => fleet }],
  details: (status) => [
    ["fleet", status.fleet],
    ["mode", status.mode],
    ...(status.modeReason === "" ? [] : [["why", status.modeReason] as const]),
    ["revision", String(status.revision)],
    [
      "leader",
      status.leader === null ? "none" : `${status.leader.holder} (term ${status.leader.term})`,
    ],
    [
      "cells",
      `${status.cells.healthy}/${status.cells.total} healthy${status.cells.down > 0 ? `, ${status.cells.down} down` : ""}`,
    ],
    ["tenants", count(status.tenants)],
    ["routers", `${status.routers.inSync}/${status.routers.live} live routers in sync`],
    ...(status.routers.wouldRefuse === undefined || status.routers.wouldRefuse === 0
      ? []
      : [
          [
            "would refuse",
            `${counted(status.routers.wouldRefuse, "request")} to an adopted cell (cellctl router ls -o wide)`,
          ] as const,
        ]),
    ["operations", `${status.ops.running} running, ${status.ops.failed} failed`],
    ...(status.failovers === undefined || status.failovers.length === 0
      ? []
      : [
          [
            "failovers",
            status.failovers.map(
              ({ cell, step, id }) => `${cell}  ${step}   (cellctl failover watch ${id})`,
            ),
          ] as const,
        ]),
    ...(status.audit === undefined
      ? []
      : [
          [
            "audit",
            `${status.audit.entries} entries, head ${status.audit.head.slice(0, 16)}`,
          ] as const,
        ]),
    ["release", status.release],
  ],
};

export const explanationView: View<Explanation> = {
  id: ({ current }) => current?.cell ?? "",
  columns: [{ head: "TENANT", cell: ({ tenant }) => tenant }],
  details: (why) => [
    ["tenant", why.tenant],
    ["keyspace", why.keyspace],
    ["now", whereNow(why)],
    ...moving(why),
    ...(why.unserved === undefined
      ? []
      : [["not served", [why.unserved.reason, ...why.unserved.next_steps]] as const]),
    ["decision", why.decision],
    ["because", why.text],
    ["candidates", why.candidates.flatMap(candidateLines)],
    ["would change if", why.would_change_if],
  ],
};

const whereNow = ({ current }: Explanation): string =>
  current === null
    ? "not placed: this is what would happen"
    : `${ownerText(current)}, epoch ${current.epoch}, ${current.state}, revision ${current.revision}`;

const candidateLines = (candidate: Explanation["candidates"][number]): string[] => [
  `${candidate.cell}  ${candidate.decision}  score ${candidate.score.toFixed(3)}`,
  ...candidate.deciders
    .filter(({ decision }) => decision !== "yes")
    .map(({ name, decision, text }) => `  ${decision} by ${name}: ${text}`),
];
