/**
 * In which phase a system is, which symptom says so, and what to do first. Cells are an answer to
 * load that no cheaper cure relieves: whoever does not need them is told so, in plain words.
 *
 * Pure: the same facts give the same judgement.
 */
import type { AssessFacts, TableFacts } from "./facts.ts";
import {
  bytesMax,
  cells,
  cpuMax,
  cpuShare,
  queuesAndReplicas,
  ratesOf,
  services,
  tenantShareMax,
  walBytesMax,
  writesOf,
} from "./grown-out.ts";
import { mendFirst, xidEnd } from "./mend-first.ts";
import { count, type Phase, percent, type Symptom, size, time } from "./symptom.ts";

export type Gauge = {
  readonly id: string;
  readonly text: string;
  /** Of the limit, 0 to 1 and beyond. */
  readonly share: number;
};

export type HotTable = {
  readonly table: string;
  /** Of all writes since the counters began, 0 to 1. */
  readonly share: number;
  readonly writes: number;
};

export type Assessment = {
  /** The database's name. */
  readonly id: string;
  readonly phase: Phase;
  readonly cellsNeeded: boolean;
  /** One sentence. */
  readonly headline: string;
  /** Heaviest first. */
  readonly symptoms: readonly Symptom[];
  /** How far each resource is from where one database ends. */
  readonly gauges: readonly Gauge[];
  /** Which tables take the writes, the busiest first. */
  readonly hotTables: readonly HotTable[];
  /** Tables in which no column says whose row it is; shared by all, or forgotten. */
  readonly withoutKey: readonly string[];
  /** Tables whose rows have no name: they cannot be replicated row by row. */
  readonly withoutPrimaryKey: readonly string[];
  /** What to do, in this order. */
  readonly first: readonly string[];
  /** What nobody could look at, and what no database can tell. */
  readonly unseen: readonly string[];
  readonly facts: AssessFacts;
};

export function judge(facts: AssessFacts): Assessment {
  const mending = mendFirst(facts);
  const larger = [...queuesAndReplicas(facts), ...services(facts)];
  const cellular = cells(facts);
  // A cure that costs an afternoon comes before one that costs a quarter.
  const relieved = new Set([...mending, ...larger].filter(isAct).map(({ resource }) => resource));
  const reasons = cellular.filter((one) => isAct(one) && !relieved.has(one.resource));
  const phase = phaseOf(reasons, larger);
  const symptoms = [...mending, ...larger, ...cellular].toSorted(
    (a, b) => Number(isAct(b)) - Number(isAct(a)),
  );
  return {
    id: facts.database,
    phase,
    cellsNeeded: phase === "cells",
    headline: headlineOf(phase, reasons, symptoms),
    symptoms,
    gauges: gaugesOf(facts),
    hotTables: hotTables(facts.tables),
    withoutKey: withoutKey(facts),
    withoutPrimaryKey: facts.tables
      .filter(({ hasPrimaryKey }) => !hasPrimaryKey)
      .map(({ name }) => name),
    first: stepsOf(phase, symptoms, reasons),
    unseen: unseenOf(facts),
    facts,
  };
}

const isAct = ({ weight }: Symptom): boolean => weight === "act";

function phaseOf(reasons: readonly Symptom[], larger: readonly Symptom[]): Phase {
  if (reasons.length > 0) return "cells";
  const acting = larger.filter(isAct);
  if (acting.some(({ phase }) => phase === "services")) return "services";
  return acting.length > 0 ? "queues-and-replicas" : "one-database";
}

function headlineOf(
  phase: Phase,
  reasons: readonly Symptom[],
  symptoms: readonly Symptom[],
): string {
  const acting = symptoms.filter(isAct);
  const [heaviest] = acting;
  switch (phase) {
    case "cells":
      return `Cells are due: ${reasons.map(({ text }) => text).join("; ")}.`;
    case "services":
      return "No cells needed yet: one part of the application outgrows the rest, and wants a service of its own.";
    case "queues-and-replicas":
      return "No cells needed yet: a queue or a replica takes off what hurts.";
    case "one-database":
      if (heaviest === undefined) return "No cells needed: one database does this with ease.";
      return "No cells needed yet: one database is enough once it is mended.";
  }
}

function stepsOf(
  phase: Phase,
  symptoms: readonly Symptom[],
  reasons: readonly Symptom[],
): readonly string[] {
  const acting = symptoms.filter(isAct);
  const cheaper = acting.filter((one) => one.phase !== "cells").map(({ first }) => first);
  if (phase !== "cells") {
    return cheaper.length > 0
      ? cheaper
      : ["nothing now; look again when the load has doubled: cellctl assess"];
  }
  return [
    ...cheaper,
    ...reasons.map(({ first }) => first),
    "cellctl check --database-url REF   (what a cell's database needs)",
    "cellctl schema check --database-url REF   (what keeps tenants apart)",
    "cellctl cell adopt --help   (this system becomes the first cell, in place)",
  ];
}

const hotTablesMax = 10;

function hotTables(tables: readonly TableFacts[]): HotTable[] {
  const all = tables.reduce((sum, table) => sum + writesOf(table), 0);
  return tables
    .map((table) => ({
      table: table.name,
      share: writesOf(table) / Math.max(1, all),
      writes: writesOf(table),
    }))
    .filter(({ writes }) => writes > 0)
    .toSorted((a, b) => b.writes - a.writes)
    .slice(0, hotTablesMax);
}

/** Without a key to look for, nothing can be said to lack it. */
function withoutKey({ tables, tenants }: AssessFacts): string[] {
  if (tenants === null) return [];
  return tables
    .filter(({ columns }) => !columns.some(({ name }) => name === tenants.column))
    .map(({ name }) => name);
}

function gaugesOf(facts: AssessFacts): Gauge[] {
  const cpu = cpuShare(facts);
  const rates = ratesOf(facts);
  const { used, max } = facts.connections;
  const [largest] = facts.tenants?.top ?? [];
  const all: (Gauge | undefined)[] = [
    cpu === undefined
      ? undefined
      : { id: "cpu", text: `${percent(cpu)} of the cores`, share: cpu / cpuMax },
    { id: "connections", text: `${used} of ${max}`, share: used / Math.max(1, max) },
    rates === null
      ? undefined
      : {
          id: "write volume",
          text: `${size(rates.walBytes)}/s of ${size(walBytesMax)}/s`,
          share: rates.walBytes / walBytesMax,
        },
    {
      id: "size",
      text: `${size(facts.bytes)} of ${size(bytesMax)}`,
      share: facts.bytes / bytesMax,
    },
    largest === undefined
      ? undefined
      : {
          id: "largest tenant",
          text: `of the rows; ${percent(tenantShareMax)} is much for one`,
          share: largest.share,
        },
    {
      id: "transaction ids",
      text: `${count(facts.xidAge)} old`,
      share: facts.xidAge / xidEnd,
    },
  ];
  return all.filter((gauge) => gauge !== undefined);
}

function unseenOf(facts: AssessFacts): string[] {
  const lines: string[] = [];
  const add = (missing: boolean, line: string) => {
    if (missing) lines.push(line);
  };
  add(
    facts.cores === null,
    `processors: ${facts.activity.onCpu.toFixed(1)} sessions were working; say how many cores the machine has: --cores N`,
  );
  add(
    !facts.mayMonitor,
    "sessions and replicas of others, for want of pg_monitor: grant pg_monitor to this role",
  );
  add(
    facts.statements === null,
    "single statements: create extension pg_stat_statements (and name it in shared_preload_libraries)",
  );
  add(
    facts.average === null,
    facts.statsS === null
      ? "growth: the counters do not say since when they count"
      : `growth: the counters are ${time(facts.statsS)} old, too young to say`,
  );
  add(
    facts.tenants === null,
    "tenants: no column looks like a tenant's key; name it: --key-column",
  );
  add(
    facts.tables.some(({ rows }) => rows < 0),
    "tables that were never analysed: analyze;",
  );
  add(facts.isReplica, "writes: this is a replica; look at the primary");
  lines.push(
    "what no database can tell: whether one failure may reach every customer, and where data must stay by law; either can be a reason for cells on its own",
  );
  return lines;
}
