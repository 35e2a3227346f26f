/**
 * What a failover lost: every write that a router passed on as done and whose commit lies behind the
 * position up to which a partner had applied the dead cell's log.
 *
 * The position in an acknowledgement was read after the commit, so it is never too small: what stands at or
 * before the partner's position is there. What stands behind it may be there all the same, and is looked
 * up by its idempotency record. What must always be true: a write that is missing is in the report, as lost
 * or as unknown, unless the method says `bound` and why; clocks of databases are compared with no other
 * machine's.
 */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import type { RpoReport } from "../../../contract/failover-api.ts";
import type { Finding, RpoFacts, RpoKey, Suspect } from "./rpo-facts.ts";
import { evidenceOf, type RpoEvidence, sinceByPartner } from "./rpo-method.ts";
import { doubtOf, positionsText, readPositions, type StorePosition } from "./rpo-position.ts";

type Acked = { readonly write: AckedWrite; readonly atMs: number };

export function suspectsOf(facts: RpoFacts): Suspect[] {
  const since = sinceByPartner(facts);
  return writesOf(facts).flatMap((acked) => suspectOf(facts, acked, since) ?? []);
}

/**
 * Pages may come twice: each write once. A list that comes late may tell of the cell's next life, too, when it
 * was wiped and its tenants came home: at a later epoch.
 */
function writesOf({ rings, keys }: RpoFacts): Acked[] {
  const seen = new Map<string, Acked>();
  for (const { router, instance, entries, offsetMs } of rings) {
    for (const write of entries) {
      if (write.epoch > (keys.get(write.key)?.epoch ?? Number.POSITIVE_INFINITY)) continue;
      const atMs = write.atMs + offsetMs;
      seen.set(`${router} ${instance} ${idOf(write)}`, { write, atMs });
    }
  }
  return [...seen.values()];
}

const idOf = ({ requestId, key, method, path, atMs }: AckedWrite): string =>
  [requestId, key, method, path, atMs].join(" ");

function suspectOf(
  facts: RpoFacts,
  { write, atMs }: Acked,
  since: ReadonlyMap<string, number | undefined>,
): Suspect | undefined {
  const key = facts.keys.get(write.key);
  // It had left the cell before: its writes travelled with it. What nobody holds is named as a whole key.
  if (key === undefined || key.fate === "unavailable") return undefined;
  const doubt = doubtOf(write, positionsOf(facts, key));
  if (doubt === undefined) return undefined;
  // A cell tells positions from when it has a standby. What was acknowledged before is in the standby's first copy,
  // or came behind it: by then the log had not come to where the partner has it.
  const sinceMs = since.get(key.cell);
  const isBefore = sinceMs !== undefined && atMs < sinceMs;
  if (doubt.isPlaceless && key.fate === "adopted" && isBefore) return undefined;
  const { because, stores } = doubt;
  return { write, atMs, owner: key.owner, because, stores };
}

function positionsOf({ partners }: RpoFacts, key: RpoKey): readonly StorePosition[] {
  if (key.fate === "returned") return readPositions(key.remoteLsn);
  return partners.find(({ annex }) => annex === key.cell)?.stores ?? [];
}

/** `findingOf` is asked once for each of `suspectsOf`. */
export function rpoReportOf(
  facts: RpoFacts,
  suspects: readonly Suspect[],
  findingOf: (suspect: Suspect) => Finding,
): RpoReport {
  const evidence = evidenceOf(facts);
  const tenants = new Map<string, RpoReport["tenants"][number]>();
  const first = new Map<string, number>();
  let found = 0;
  for (const suspect of suspects) {
    const finding = findingOf(suspect);
    if (finding === "found") {
      found += 1;
      continue;
    }
    const { key, tenant } = suspect.write;
    const name = `${key}\n${tenant}`;
    const entry = tenants.get(name) ?? { tenant, key, boundSeconds: null, lost: [], unknown: [] };
    const list = finding === "absent" ? entry.lost : entry.unknown;
    list.push({ ...suspect.write, because: becauseOf(suspect, finding) });
    tenants.set(name, entry);
    first.set(name, Math.min(first.get(name) ?? suspect.atMs, suspect.atMs));
  }
  const rows = [...tenants].map(([name, entry]) => ({
    ...entry,
    boundSeconds: evidence.boundOf(facts.keys.get(entry.key), first.get(name)),
  }));
  return assemble(facts, evidence, rows, found);
}

const becauseOf = ({ because, write }: Suspect, finding: Finding): string => {
  if (finding === "absent") return `${because}; its idempotency record is not there`;
  if (write.idempotencyKey === undefined) return `${because}; it had no idempotency key`;
  return `${because}; its idempotency record could not be looked up`;
};

function assemble(
  facts: RpoFacts,
  evidence: RpoEvidence,
  rows: RpoReport["tenants"],
  found: number,
): RpoReport {
  const keys = [...facts.keys.values()];
  const of = (fate: RpoKey["fate"]) => keys.filter((key) => key.fate === fate);
  const named = (fate: RpoKey["fate"]) => of(fate).map(({ key, reason }) => ({ key, reason }));
  const sum = (count: (row: RpoReport["tenants"][number]) => number) =>
    rows.reduce((total, row) => total + count(row), 0);
  return {
    failover: facts.failover,
    cell: facts.cell,
    ...{ revision: 1, amendedAt: null },
    detectedAt: new Date(facts.detectedAtMs).toISOString(),
    fencedAt: facts.fencedAtMs === null ? null : new Date(facts.fencedAtMs).toISOString(),
    method: evidence.method,
    methodReason: evidence.reason,
    partners: facts.partners.map(({ annex, host, stores, heartbeatAgeMs }) => ({
      ...{ annex, host, remoteLsn: positionsText(stores), heartbeatAgeMs },
      keys: keys.filter(({ cell }) => cell === annex).length,
    })),
    totals: {
      keys: keys.length,
      adopted: of("adopted").length + of("returned").length,
      unavailable: of("unavailable").length,
      quarantined: of("quarantined").length,
      acked: writesOf(facts).filter(({ write }) => facts.keys.has(write.key)).length,
      lost: sum(({ lost }) => lost.length),
      unknown: sum(({ unknown }) => unknown.length),
      found,
    },
    tenants: [...rows, ...evidence.otherTenants(rows)],
    unavailable: named("unavailable"),
    quarantined: named("quarantined"),
  };
}
