/**
 * What speaks for another shape of the system: replicas and queues, services with databases of their
 * own, cells. Pure: facts in, symptoms out.
 */
import type { AssessFacts, Rates, TableFacts } from "./facts.ts";
import { xidEnd } from "./mend-first.ts";
import { count, percent, type Symptom, size, time } from "./symptom.ts";

/** Of all cores: beyond it, waiting times grow faster than the load. */
export const cpuMax = 0.7;
/** What one primary writes, and its replicas replay, without strain on common machines. */
export const walBytesMax = 50 * 1024 ** 2;
export const bytesMax = 2 * 1024 ** 4;
/** A restore copies about this much a second. */
const restoreBytesPerSecond = 100 * 1024 ** 2;
const readShareMin = 0.8;
const replicaLagMsMax = 10_000;
const queueChurn = 10;
const queueRowsMin = 100_000;
const queueShareMin = 0.3;
const foreignShareMin = 0.4;
const writesMin = 100;
export const tenantShareMax = 0.25;
const tenantRowsMin = 1_000_000;
/** Below both, and without much being written, a large tenant disturbs nobody. */
const tenantBytesMin = 512 * 1024 ** 3;
const tenantCpuMin = 0.5;
const xidDaysMin = 3;
const growthDaysMax = 365;
const growthBytesMin = 200 * 1024 ** 3;

export const ratesOf = ({ now, average }: AssessFacts): Rates | null => now ?? average;

/** Share of the cores that are busy; undefined where nobody said how many there are. */
export const cpuShare = ({ cores, activity }: AssessFacts): number | undefined =>
  cores === null ? undefined : activity.onCpu / cores;

function readShare(facts: AssessFacts): number | undefined {
  const rates = ratesOf(facts);
  if (rates === null || rates.rowsRead + rates.rowsWritten === 0) return undefined;
  return rates.rowsRead / (rates.rowsRead + rates.rowsWritten);
}

export function queuesAndReplicas(facts: AssessFacts): Symptom[] {
  return [...readsOnPrimary(facts), ...replicaLag(facts), ...queueTables(facts)];
}

function readsOnPrimary(facts: AssessFacts): Symptom[] {
  const cpu = cpuShare(facts);
  const reads = readShare(facts);
  if (cpu === undefined || reads === undefined) return [];
  if (cpu < cpuMax || reads < readShareMin || facts.replicas.length > 0) return [];
  return [
    {
      id: "reads-on-primary",
      phase: "queues-and-replicas",
      weight: "act",
      resource: "cpu",
      text: `${percent(cpu)} of ${facts.cores ?? 0} cores are busy, ${percent(reads)} of the rows touched are only read, and there is no replica`,
      value: cpu,
      limit: cpuMax,
      unit: "share of cores",
      first: "add a replica, and send the reads there that may be a second old",
    },
  ];
}

const replicaLag = ({ replicas }: AssessFacts): Symptom[] =>
  replicas
    .filter(({ lagMs }) => lagMs !== null && lagMs > replicaLagMsMax)
    .map(({ name, lagMs, lagBytes }) => ({
      id: `replica-lag:${name}`,
      phase: "queues-and-replicas",
      weight: "act",
      resource: "writes",
      text: `the replica ${name} is ${time((lagMs ?? 0) / 1000)} behind${lagBytes === null ? "" : ` (${size(lagBytes)} of log)`}`,
      value: lagMs ?? 0,
      limit: replicaLagMsMax,
      unit: "milliseconds",
      first:
        "look for large transactions and long queries on the replica (max_standby_streaming_delay); then for its disk",
    }));

export const writesOf = ({ inserts, updates, deletes }: TableFacts): number =>
  inserts + updates + deletes;
const queueName = /(^|[._])(jobs?|queues?|outbox|tasks?|deliver(y|ies)|good_jobs|delayed_jobs)$/i;

/** Few rows stand in it, and many pass: a queue, whatever it is called. */
function queueTables({ tables }: AssessFacts): Symptom[] {
  const all = tables.reduce((sum, table) => sum + writesOf(table), 0);
  return tables.flatMap((table) => {
    const passed = Math.min(table.inserts, table.deletes) + table.updates;
    const isQueue =
      passed >= queueRowsMin &&
      passed >= queueChurn * Math.max(1, table.rows) &&
      (table.deletes >= table.inserts / 2 || queueName.test(table.name));
    const share = writesOf(table) / Math.max(1, all);
    if (!isQueue || share < queueShareMin) return [];
    return [
      {
        id: `queue:${table.name}`,
        phase: "queues-and-replicas" as const,
        weight: "act" as const,
        resource: "writes" as const,
        text: `${table.name} is used as a queue and makes ${percent(share)} of all writes (${count(Math.max(0, table.rows))} rows stand, ${count(passed)} passed)`,
        value: share,
        limit: queueShareMin,
        unit: "share of writes",
        first: `take work in batches with FOR UPDATE SKIP LOCKED, vacuum ${table.name} often, or move it to a queue of its own`,
      },
    ];
  });
}

export function services(facts: AssessFacts): Symptom[] {
  const rates = ratesOf(facts);
  const key = facts.tenants?.column;
  if (key === undefined || rates === null || rates.rowsWritten < writesMin) return [];
  const all = facts.tables.reduce((sum, table) => sum + writesOf(table), 0);
  return facts.tables.flatMap((table) => {
    const share = writesOf(table) / Math.max(1, all);
    if (share < foreignShareMin || table.columns.some(({ name }) => name === key)) return [];
    if (queueName.test(table.name)) return [];
    return [
      {
        id: `foreign-load:${table.name}`,
        phase: "services" as const,
        weight: "act" as const,
        resource: "writes" as const,
        text: `${table.name} belongs to no tenant (no column ${key}) and makes ${percent(share)} of all writes`,
        value: share,
        limit: foreignShareMin,
        unit: "share of writes",
        first: `give what writes ${table.name} a service and a database of its own`,
      },
    ];
  });
}

export function cells(facts: AssessFacts): Symptom[] {
  return [
    ...writesBeyondOne(facts),
    ...cpuBeyondOne(facts),
    ...sizeBeyondOne(facts),
    ...noisyNeighbour(facts),
    ...xidsPerDay(facts),
    ...growth(facts),
  ];
}

function writesBeyondOne(facts: AssessFacts): Symptom[] {
  const bytes = ratesOf(facts)?.walBytes ?? 0;
  if (bytes < walBytesMax / 2) return [];
  return [
    {
      id: "write-volume",
      phase: "cells",
      weight: bytes >= walBytesMax ? "act" : "watch",
      resource: "writes",
      text: `${size(bytes)} of write-ahead log a second: one primary writes it all, and every replica replays it alone`,
      value: bytes,
      limit: walBytesMax,
      unit: "bytes per second",
      first:
        "take what need not be written away (indexes nobody uses, updates that change nothing)",
    },
  ];
}

function cpuBeyondOne(facts: AssessFacts): Symptom[] {
  const cpu = cpuShare(facts);
  if (cpu === undefined || cpu < cpuMax) return [];
  const reads = readShare(facts);
  // Reads go to replicas first, while there is none.
  if (facts.replicas.length === 0 && reads !== undefined && reads >= readShareMin) return [];
  return [
    {
      id: "cpu",
      phase: "cells",
      weight: "act",
      resource: "cpu",
      text: `${percent(cpu)} of ${facts.cores ?? 0} cores are busy, and ${reads === undefined ? "nobody can tell how much of it reads" : `${percent(1 - reads)} of the rows touched are written`}${facts.replicas.length > 0 ? ", with replicas in use" : ""}`,
      value: cpu,
      limit: cpuMax,
      unit: "share of cores",
      first: "a larger machine buys months; cells are what comes after the largest",
    },
  ];
}

function sizeBeyondOne({ bytes }: AssessFacts): Symptom[] {
  if (bytes < bytesMax / 2) return [];
  return [
    {
      id: "size",
      phase: "cells",
      weight: bytes >= bytesMax ? "act" : "watch",
      resource: "size",
      text: `the database has ${size(bytes)}: a restore takes about ${time(bytes / restoreBytesPerSecond)}, for every tenant at once`,
      value: bytes,
      limit: bytesMax,
      unit: "bytes",
      first: "archive what nobody reads, partition by time; then spread tenants",
    },
  ];
}

/** It matters where there is load to suffer from; a small database has no neighbours to disturb. */
function noisyNeighbour(facts: AssessFacts): Symptom[] {
  const { tenants } = facts;
  const [first, second] = tenants?.top ?? [];
  if (tenants === null || first === undefined || first.share < tenantShareMax) return [];
  if (first.rows < tenantRowsMin || (second === undefined && tenants.tenants === 1)) return [];
  return [
    {
      id: "noisy-neighbour",
      phase: "cells",
      weight: isLoaded(facts) ? "act" : "watch",
      resource: "tenant",
      text: `one tenant (${first.tenant}) has ${percent(first.share)} of the rows (${count(first.rows)}): its load is everybody's`,
      value: first.share,
      limit: tenantShareMax,
      unit: "share of rows",
      first: `a cell of its own for ${first.tenant} takes it off everybody else`,
    },
  ];
}

const isLoaded = (facts: AssessFacts): boolean =>
  facts.bytes >= tenantBytesMin ||
  (cpuShare(facts) ?? 0) >= tenantCpuMin ||
  (ratesOf(facts)?.walBytes ?? 0) >= walBytesMax / 2;

function xidsPerDay({ now }: AssessFacts): Symptom[] {
  const perDay = (now?.xids ?? 0) * 86_400;
  if (perDay === 0 || xidEnd / perDay >= xidDaysMin) return [];
  return [
    {
      id: "xid-rate",
      phase: "cells",
      weight: "act",
      resource: "xid",
      text: `${count(perDay)} transaction ids a day: vacuum has ${time((xidEnd / perDay) * 86_400)} to freeze everything, again and again`,
      value: perDay,
      limit: xidEnd / xidDaysMin,
      unit: "transactions per day",
      first: "several writes per transaction; then spread tenants",
    },
  ];
}

function growth({ bytes, growthBytesPerDay }: AssessFacts): Symptom[] {
  if (growthBytesPerDay === null || growthBytesPerDay <= 0 || bytes >= bytesMax) return [];
  const days = (bytesMax - bytes) / growthBytesPerDay;
  if (days > growthDaysMax || bytes < growthBytesMin) return [];
  return [
    {
      id: "growth",
      phase: "cells",
      weight: "watch",
      resource: "size",
      text: `it grows by ${size(growthBytesPerDay)} a day and has ${size(bytesMax)} in ${count(days)} days`,
      value: days,
      limit: growthDaysMax,
      unit: "days",
      first: "archive what nobody reads; prepare the key columns: cellctl schema check",
    },
  ];
}
