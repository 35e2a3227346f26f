/** Which facts lead to which judgement: a table of systems as they are met. */
import { describe, expect, test } from "vitest";
import type { AssessFacts, Rates, TableFacts } from "./facts.ts";
import { judge } from "./judge.ts";
import type { Phase } from "./symptom.ts";

const gib = 1024 ** 3;
const day = 86_400;

const rates = (more: Partial<Rates> = {}): Rates => ({
  seconds: 60,
  transactions: 50,
  rowsRead: 5000,
  rowsWritten: 50,
  walBytes: 100_000,
  tempBytes: 0,
  deadlocks: 0,
  xids: 20,
  ...more,
});

const table = (name: string, more: Partial<TableFacts> = {}): TableFacts => ({
  name: `public.${name}`,
  schema: "public",
  rows: 50_000,
  bytes: 20_000_000,
  dead: 100,
  seqScans: 10,
  seqRows: 500_000,
  indexScans: 1_000_000,
  inserts: 60_000,
  updates: 20_000,
  deletes: 10_000,
  vacuumedS: 3600,
  hasPrimaryKey: true,
  columns: [
    { name: "id", type: "bigint" },
    { name: "tenant_id", type: "text" },
  ],
  ...more,
});

/** A small, healthy system: 4 GiB, hardly used. */
const healthy: AssessFacts = {
  database: "shop",
  versionName: "18.4",
  bytes: 4 * gib,
  isReplica: false,
  statsS: 30 * day,
  mayMonitor: true,
  autovacuum: true,
  freezeMaxAge: 200_000_000,
  cache: { hit: 99_500_000, read: 500_000 },
  connections: { used: 12, max: 97, users: 2 },
  replicas: [],
  idleSlots: [],
  xidAge: 50_000_000,
  cores: 8,
  activity: {
    looks: 10,
    onCpu: 0.4,
    active: 0.6,
    idleInTransaction: 0,
    waitingForLocks: 0,
    longestLockWaitS: 0,
    oldestTransactionS: 0.2,
    oldestIdleInTransactionS: 0,
  },
  now: rates(),
  average: rates({ seconds: 30 * day }),
  tables: [table("orders"), table("customers"), table("invoices")],
  statements: [{ text: "select 1", calls: 1000, meanMs: 0.1, share: 0.1 }],
  tenants: {
    column: "tenant_id",
    why: "guessed",
    how: "statistics",
    tenants: 400,
    rows: 150_000,
    top: [
      { tenant: "acme", rows: 4000, share: 0.027 },
      { tenant: "globex", rows: 3000, share: 0.02 },
    ],
  },
  growthBytesPerDay: 10_000_000,
};
const activity = (more: Partial<AssessFacts["activity"]>) => ({ ...healthy.activity, ...more });
const dominant = (rows: number) => ({
  column: "tenant_id",
  why: "guessed",
  how: "statistics" as const,
  tenants: 400,
  rows: Math.round(rows / 0.6),
  top: [
    { tenant: "acme", rows, share: 0.6 },
    { tenant: "globex", rows: 1000, share: 0.001 },
  ],
});
const busyWriting = {
  activity: activity({ onCpu: 7.2, active: 9 }),
  now: rates({ rowsRead: 9000, rowsWritten: 6000, walBytes: 20 * 1024 ** 2 }),
};
const wholeReads = [
  table("orders", {
    rows: 4_000_000,
    seqScans: 20_000,
    seqRows: 7_000_000_000_000,
    indexScans: 5000,
  }),
];

type Case = {
  readonly name: string;
  readonly facts: Partial<AssessFacts>;
  readonly phase: Phase;
  readonly symptoms: readonly string[];
};

const cases: readonly Case[] = [
  { name: "idle and small", facts: {}, phase: "one-database", symptoms: [] },
  {
    name: "empty, just made",
    facts: {
      bytes: 8_000_000,
      tables: [],
      tenants: null,
      statements: null,
      average: null,
      now: null,
      statsS: null,
      growthBytesPerDay: null,
      cores: null,
      cache: { hit: 10, read: 900 },
    },
    phase: "one-database",
    symptoms: [],
  },
  {
    name: "connections at 95 %",
    facts: { connections: { used: 92, max: 97, users: 2 } },
    phase: "one-database",
    symptoms: ["connections"],
  },
  {
    name: "transaction ids near the end",
    facts: { xidAge: 1_900_000_000 },
    phase: "one-database",
    symptoms: ["xid-wraparound"],
  },
  {
    name: "a session asleep inside a transaction",
    facts: { activity: activity({ oldestIdleInTransactionS: 4000, oldestTransactionS: 4000 }) },
    phase: "one-database",
    symptoms: ["idle-in-transaction", "long-transaction"],
  },
  {
    name: "a queue of waiters for one lock",
    facts: { activity: activity({ waitingForLocks: 14, longestLockWaitS: 42 }) },
    phase: "one-database",
    symptoms: ["lock-waits"],
  },
  {
    name: "processors busy, but an index is missing",
    facts: { ...busyWriting, tables: wholeReads },
    phase: "one-database",
    symptoms: ["whole-reads:public.orders", "cpu"],
  },
  {
    name: "an index is missing, and nobody feels it",
    facts: { tables: [table("orders", { rows: 400_000, seqScans: 2e5, seqRows: 8e10 })] },
    phase: "one-database",
    symptoms: ["whole-reads:public.orders"],
  },
  {
    name: "processors busy, by one statement",
    facts: {
      ...busyWriting,
      statements: [{ text: "select * from orders", calls: 900_000, meanMs: 40, share: 0.7 }],
    },
    phase: "one-database",
    symptoms: ["one-statement", "cpu"],
  },
  {
    name: "memory too small",
    facts: { cache: { hit: 80_000_000, read: 20_000_000 } },
    phase: "one-database",
    symptoms: ["cache"],
  },
  {
    name: "dead rows",
    facts: { tables: [table("orders", { rows: 500_000, dead: 400_000, vacuumedS: null })] },
    phase: "one-database",
    symptoms: ["dead-rows:public.orders"],
  },
  {
    name: "autovacuum off",
    facts: { autovacuum: false },
    phase: "one-database",
    symptoms: ["autovacuum-off"],
  },
  {
    name: "a forgotten replication slot",
    facts: { idleSlots: [{ name: "old_cdc", keptBytes: 80 * gib }] },
    phase: "one-database",
    symptoms: ["idle-slot:old_cdc"],
  },
  {
    name: "processors busy with reads, and no replica",
    facts: {
      activity: activity({ onCpu: 7 }),
      now: rates({ rowsRead: 900_000, rowsWritten: 100 }),
    },
    phase: "queues-and-replicas",
    symptoms: ["reads-on-primary"],
  },
  {
    name: "a replica minutes behind",
    facts: {
      replicas: [{ name: "r1", state: "streaming", lagMs: 240_000, lagBytes: 9 * gib }],
    },
    phase: "queues-and-replicas",
    symptoms: ["replica-lag:r1"],
  },
  {
    name: "a table used as a queue",
    facts: {
      tables: [
        table("orders"),
        table("jobs", { rows: 300, inserts: 5_000_000, updates: 5_000_000, deletes: 5_000_000 }),
      ],
    },
    phase: "queues-and-replicas",
    symptoms: ["queue:public.jobs"],
  },
  {
    name: "half of the writes are page views of nobody's",
    facts: {
      now: rates({ rowsWritten: 3000 }),
      tables: [
        table("orders"),
        table("page_views", { inserts: 900_000, columns: [{ name: "id", type: "bigint" }] }),
      ],
    },
    phase: "services",
    symptoms: ["foreign-load:public.page_views"],
  },
  {
    name: "one tenant with 60 % of the rows, under load",
    facts: { tenants: dominant(30_000_000), activity: activity({ onCpu: 4.4 }), bytes: 90 * gib },
    phase: "cells",
    symptoms: ["noisy-neighbour"],
  },
  {
    name: "one tenant with 60 % of the rows, and nobody feels it",
    facts: { tenants: dominant(30_000_000) },
    phase: "one-database",
    symptoms: ["noisy-neighbour"],
  },
  {
    name: "one tenant with 60 % of 2,000 rows",
    facts: {
      tenants: dominant(1200),
      activity: activity({ onCpu: 6 }),
      bytes: 90 * gib,
      now: rates({ rowsWritten: 9000 }),
      replicas: [{ name: "r1", state: "streaming", lagMs: 5, lagBytes: 0 }],
    },
    phase: "cells",
    symptoms: ["cpu"],
  },
  {
    name: "processors busy with writes",
    facts: busyWriting,
    phase: "cells",
    symptoms: ["cpu"],
  },
  {
    name: "processors busy with reads, although there are replicas",
    facts: {
      activity: activity({ onCpu: 7 }),
      now: rates({ rowsRead: 900_000 }),
      replicas: [{ name: "r1", state: "streaming", lagMs: 3, lagBytes: 100 }],
    },
    phase: "cells",
    symptoms: ["cpu"],
  },
  {
    name: "more log than a replica replays",
    facts: { now: rates({ walBytes: 80 * 1024 ** 2 }) },
    phase: "cells",
    symptoms: ["write-volume"],
  },
  {
    name: "more log than a replica replays, most of it by a queue",
    facts: {
      now: rates({ walBytes: 80 * 1024 ** 2 }),
      tables: [table("jobs", { rows: 300, inserts: 9e6, updates: 9e6, deletes: 9e6 })],
    },
    phase: "queues-and-replicas",
    symptoms: ["queue:public.jobs", "write-volume"],
  },
  {
    name: "three tebibytes",
    facts: { bytes: 3 * 1024 * gib },
    phase: "cells",
    symptoms: ["size"],
  },
  {
    name: "growing towards the end within the year",
    facts: { bytes: 400 * gib, growthBytesPerDay: 10 * gib },
    phase: "one-database",
    symptoms: ["growth"],
  },
  {
    name: "transaction ids used up within two days",
    facts: { now: rates({ xids: 15_000 }) },
    phase: "cells",
    symptoms: ["xid-rate"],
  },
];

describe("judgement", () => {
  test.each(cases)("$name: $phase", ({ facts, phase, symptoms }) => {
    const found = judge({ ...healthy, ...facts });
    expect({ phase: found.phase, symptoms: found.symptoms.map(({ id }) => id) }).toEqual({
      phase,
      symptoms,
    });
    expect(found.cellsNeeded).toBe(phase === "cells");
    // Whoever does not need them is told in as many words.
    expect(found.headline).toMatch(phase === "cells" ? /^Cells are due/ : /^No cells needed/);
    // Each symptom has its number in its sentence, and each judgement a first step.
    for (const symptom of found.symptoms.filter(({ id }) => id !== "autovacuum-off")) {
      expect(symptom.text).toMatch(/\d/);
      expect(symptom.first).not.toBe("");
    }
    expect(found.first.length).toBeGreaterThan(0);
  });

  test("cheap cures come before cells, also when cells are due", () => {
    const found = judge({
      ...healthy,
      ...busyWriting,
      connections: { used: 96, max: 97, users: 3 },
    });
    expect(found.phase).toBe("cells");
    expect(found.first[0]).toContain("pooler");
    expect(found.first.at(-1)).toContain("cellctl cell adopt");
  });

  test("what could not be seen is said, and never guessed", () => {
    const found = judge({
      ...healthy,
      cores: null,
      mayMonitor: false,
      statements: null,
      tenants: null,
      average: null,
      statsS: 60,
      activity: activity({ onCpu: 30 }),
    });
    expect(found.phase).toBe("one-database");
    for (const words of [
      "--cores",
      "pg_monitor",
      "pg_stat_statements",
      "--key-column",
      "too young",
    ]) {
      expect(found.unseen.join("\n")).toContain(words);
    }
    expect(found.gauges.map(({ id }) => id)).not.toContain("cpu");
    // Always: a database cannot tell whether one failure may reach everybody.
    expect(judge(healthy).unseen).toHaveLength(1);
  });

  test("every number is finite, whatever is zero", () => {
    const nothing = judge({
      ...healthy,
      bytes: 0,
      connections: { used: 0, max: 0, users: 0 },
      cache: { hit: 0, read: 0 },
      tables: [table("t", { rows: 0, inserts: 0, updates: 0, deletes: 0, dead: 0, seqScans: 0 })],
      tenants: { ...dominant(0), rows: 0, top: [] },
    });
    for (const { share } of nothing.gauges) expect(Number.isFinite(share)).toBe(true);
  });
});
