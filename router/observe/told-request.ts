/**
 * Pure: a request that is over, first as a note worth keeping, later as a story: what was decided, by
 * which table, what the cell said, where the time went, and what to do next.
 */
import { type ErrorCode, errorTable, isErrorCode } from "../../contract/errors.ts";
import type { RememberedRequest } from "../../contract/remembered-request.ts";
import type { RequestRecord } from "./record.ts";

export type RequestNote = Omit<
  RememberedRequest,
  "router" | "at" | "kind" | "trace" | "nextSteps"
> & {
  /** That the client was told. */
  readonly told: readonly string[];
};

/** Texts of a client that end up in an entry are cut to this. */
const charsMax = 300;

export function noteOf(record: RequestRecord, endedMs: number): RequestNote {
  const { identity, route, refusal, times } = record;
  return {
    id: record.trace.requestId,
    traceId: record.trace.traceId,
    method: record.method.slice(0, charsMax),
    protocol: record.proto,
    status: record.status,
    code: record.errorCode ?? null,
    message: refusal?.message.slice(0, charsMax) ?? null,
    flag: record.flag,
    tenant: identity?.tenant ?? null,
    keyspace: identity?.keyspace ?? null,
    source: identity?.source ?? null,
    service: record.service ?? null,
    cell: record.cell ?? null,
    key: route?.key ?? null,
    epoch: route?.epoch ?? null,
    revision: record.revision ?? null,
    decision: record.attempt > 0 ? "forwarded" : "refused",
    attempts: record.attempt,
    endpoint: record.upstream ?? null,
    failures: [...record.failures],
    cellSaid: record.cellSaid?.slice(0, charsMax) ?? null,
    timings: {
      totalMs: round(endedMs - record.startedMs),
      overheadMs: round(record.ownMs(endedMs)),
      holdMs: round(record.holdMs),
      queueMs: round(times.queueMs),
      connectMs: round(times.connectMs),
      firstByteMs: round(times.firstByteMs),
    },
    told: refusal?.nextSteps ?? [],
  };
}

const round = (ms: number): number => Math.round(ms * 100) / 100;

type Note = Omit<RememberedRequest, "trace" | "nextSteps"> & { readonly told?: unknown };

export function storyOf(note: Note): Pick<RememberedRequest, "trace" | "nextSteps"> {
  const lines = [whose(note), where(note), held(note), forwarded(note), said(note), ended(note)];
  return {
    trace: [...lines.filter((line) => line !== undefined), ...toldSteps(note)],
    nextSteps: operatorSteps(note),
  };
}

function whose({ tenant, keyspace, source, service }: Note): string {
  const to = service === null ? "" : `, for service ${service}`;
  return tenant === null
    ? `no tenant was read from the request${to}`
    : `${source} named tenant ${tenant} of keyspace ${keyspace}${to}`;
}

function where({ revision, key, cell, epoch }: Note): string {
  if (revision === null) return "no routing table was asked";
  const table = `by the table at revision ${revision}`;
  if (key === null) return cell === null ? `${table} no cell was chosen` : `${table}: cell ${cell}`;
  return `${table} key ${key} is owned by cell ${cell} at epoch ${epoch}`;
}

const held = ({ timings }: Note): string | undefined =>
  timings.holdMs > 0
    ? `it waited ${timings.holdMs} ms because its placement was changing hands`
    : undefined;

function forwarded({ decision, attempts, endpoint, failures, timings }: Note): string {
  if (decision === "refused") return "it was not given to any cell";
  const tries = attempts === 1 ? "once" : `${attempts} times`;
  const wait = `${timings.queueMs} ms for a seat, ${timings.connectMs} ms for a connection`;
  const bad = failures.length === 0 ? "" : `; failed: ${failures.join("; ")}`;
  return `it was given to a cell ${tries}, last to ${endpoint} (waited ${wait})${bad}`;
}

const said = ({ cellSaid, cell }: Note): string | undefined =>
  cellSaid === null ? undefined : `cell ${cell} answered with code ${cellSaid}`;

function ended({ status, code, message, flag, timings }: Note): string {
  const after = `after ${timings.totalMs} ms`;
  if (status === 0) return `the client got no answer (${flag}) ${after}`;
  if (code !== null && isInstead(flag)) {
    return `${after} the router gave ${instead[flag]} (${status}) in place of ${code}: ${message ?? meaningOf(code)}`;
  }
  if (code !== null) {
    return `${after} the router answered ${status} ${code}: ${message ?? meaningOf(code)}`;
  }
  if (flag === "incomplete") return `${after} the answer went out without the parts of some cells`;
  const how = flag === "ok" ? "" : ` and was cut off (${flag})`;
  return `the answer of the cell, ${status}, went to the client${how} ${after}`;
}

/** What a route's `fallback` gives, by the flag of the request. */
const instead = {
  stale: "an older answer of the same cell to the same tenant",
  static: "the fixed answer of the route",
} as const;
const isInstead = (flag: string): flag is keyof typeof instead => Object.hasOwn(instead, flag);

const meaningOf = (code: string): string => (isErrorCode(code) ? errorTable[code].meaning : "");

/** For whoever runs the fleet; `CELL` and `TENANT` stand for the names. */
const steps: Readonly<Partial<Record<ErrorCode, readonly string[]>>> = {
  TENANT_UNKNOWN: ["cellctl tenant get TENANT", "cellctl explain placement TENANT"],
  TENANT_SUSPENDED: ["cellctl tenant get TENANT"],
  TENANT_MISSING: ["cellctl routing get"],
  TENANT_CONFLICT: ["cellctl routing get"],
  TENANT_INVALID: ["cellctl routing get"],
  TENANT_LIMITED: ["cellctl routing get -o yaml   (policy: tenantLimits)", "cellctl top"],
  PLACEMENT_HELD: ["cellctl tenant get TENANT", "cellctl op ls"],
  PLACEMENT_UNAVAILABLE: ["cellctl tenant get TENANT", "cellctl router ls"],
  OUTCOME_UNKNOWN: ["cellctl cell get CELL", "cellctl events"],
  CELL_UNREACHABLE: ["cellctl cell get CELL"],
  CELL_TIMEOUT: ["cellctl cell get CELL", "cellctl top"],
  CELL_PROTOCOL: ["cellctl cell get CELL"],
  ROUTER_OVERLOADED: ["cellctl top", "cellctl cell get CELL"],
  TABLE_NOT_LOADED: ["cellctl router ls", "cellctl check"],
};

function operatorSteps(note: Note): string[] {
  const code = note.code ?? note.cellSaid;
  const known = code !== null && isErrorCode(code) ? code : undefined;
  const fallback = note.status >= 500 || note.status === 0 ? ["cellctl cell get CELL"] : [];
  const own = (known && steps[known]) ?? fallback;
  const names: Readonly<Record<string, string | null>> = { TENANT: note.tenant, CELL: note.cell };
  const filled = own.flatMap((step) => {
    const place = Object.keys(names).find((name) => step.includes(name));
    const name = place === undefined ? undefined : names[place];
    if (place === undefined) return [step];
    return name === null || name === undefined ? [] : [step.replace(place, name)];
  });
  return known === undefined ? filled : [...filled, `cellctl explain ${known}`];
}

const toldSteps = ({ told }: Note): string[] =>
  Array.isArray(told)
    ? told.filter((step) => typeof step === "string").map((step) => `the client was told: ${step}`)
    : [];
