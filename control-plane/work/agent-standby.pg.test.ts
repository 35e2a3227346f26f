/** What agents say of standbys and are told of them. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { JsonClient } from "../../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  type AgentChange,
  type ControlFixture,
  callAgent,
  openCell,
  soleRow,
  startControl,
} from "../control.fixture.ts";
import { enterRecovery } from "../store/recovery-evidence.ts";
import { cell as cellTable } from "../store/schema.ts";
import { recoveryCell } from "../store/schema-recovery.ts";
import { standby } from "../store/schema-standby.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("standbys"));
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

let number = 0;
async function newPair() {
  number += 1;
  const [origin, annex] = [`cell-${number}`, `sb-cell-${number}-host`];
  const agents: JsonClient[] = [];
  for (const one of [origin, annex]) {
    await openCell(control.database, one);
    agents.push(await control.client("agent", one));
  }
  const host = { annexOrigin: origin, annexHost: "host" };
  const db = control.database.read;
  await db.update(cellTable).set(host).where(eq(cellTable.id, annex));
  await db.insert(standby).values({
    ...{ annex, origin, host: "host", provider: "logical", bucketLo: 0, bucketHi: 255 },
    state: "syncing",
  });
  const call = (at: 0 | 1) => (change?: AgentChange) =>
    callAgent(agents[at] as JsonClient, at === 0 ? origin : annex, change);
  return {
    ...{ origin, annex, asOrigin: call(0), asAnnex: call(1) },
    set: (values: Partial<typeof standby.$inferInsert>) =>
      db.update(standby).set(values).where(eq(standby.annex, annex)),
    list: (revision: number) =>
      db.update(cellTable).set({ partnerRevision: revision }).where(eq(cellTable.id, origin)),
    row: async () => soleRow(await db.select().from(standby).where(eq(standby.annex, annex))),
    acked: async () => {
      const one = soleRow(await db.select().from(cellTable).where(eq(cellTable.id, origin)));
      return { told: one.partnerRevision, acked: one.partnerAcked };
    },
  };
}
const knows = (listRevision: number, controlGrant?: number) => ({
  origin: { listRevision, failsafeMs: 0, ...(controlGrant === undefined ? {} : { controlGrant }) },
});

test("an origin is told whom it was told of, and an annex the same token", async () => {
  const pair = await newPair();
  const { annex: told } = await pair.asAnnex({ endpoint: "http://127.0.0.1:9999", ...knows(0) });
  expect(told?.origin).toBe(pair.origin);
  const before = await pair.asOrigin(knows(0));
  expect(before.partners).toEqual({ revision: 0, partners: [], promiseMs: 1_200_000 });
  await pair.set({ state: "broken", listedAt: 1 });
  await pair.list(1);
  const { partners } = await pair.asOrigin({ ...knows(0), waitMs: 4000 });
  expect(partners).toEqual({
    ...{ revision: 1, promiseMs: 1_200_000 },
    partners: [
      {
        ...{ annex: pair.annex, host: "host", lo: 0, hi: 255 },
        ...{ endpoint: "http://127.0.0.1:9999", token: told?.token },
      },
    ],
  });
  expect(await pair.acked()).toEqual({ told: 1, acked: 0 });
  await pair.asOrigin(knows(1));
  expect(await pair.acked()).toEqual({ told: 1, acked: 1 });
  await pair.set({ state: "leaving", unlistedAt: 2 });
  await pair.list(2);
  expect((await pair.asOrigin(knows(1))).partners).toMatchObject({ revision: 2, partners: [] });
  // Another pair has another token.
  const other = await newPair();
  expect((await other.asAnnex()).annex?.token).not.toBe(told?.token);
});

test("a list that this control plane never told is surpassed before anything of it counts", async () => {
  const pair = await newPair();
  await pair.set({ state: "ready", listedAt: 1 });
  await pair.list(1);
  await pair.asOrigin(knows(7));
  expect(await pair.acked()).toEqual({ told: 8, acked: 0 });
  expect((await pair.asOrigin(knows(7))).partners?.revision).toBe(8);
  // The cell's list 7 named others: it may not be adopted from before it knows list 8.
  expect((await pair.row())["listedAt"]).toBe(8);
  await pair.asOrigin(knows(8));
  expect(await pair.acked()).toEqual({ told: 8, acked: 8 });
});

test("an annex hears orders at once, and what it records and sees is kept", async () => {
  const pair = await newPair();
  const says = (more: object) => ({
    ...knows(0),
    annex: {
      ...{ origin: pair.origin, sees: "alive", heartbeatAgeMs: 10, promiseRemainingMs: 900 },
      ...more,
    },
  });
  await pair.asAnnex(says({}));
  expect(await pair.row()).toMatchObject({ sees: "alive", promiseRemainingMs: 900 });
  await pair.set({ orderFailover: "op_1", orderAttempt: 2, orderOpen: false });
  const order = { failover: "op_1", attempt: 2, open: false };
  const told = await pair.asAnnex({ ...says({}), waitMs: 4000 });
  expect(told.annex?.takeover).toEqual(order);
  await pair.asAnnex(says({ takeover: order, sees: "silent", promiseRemainingMs: 0 }));
  expect(await pair.row()).toMatchObject({
    ...{ sees: "silent", promiseRemainingMs: 0, takeoverFailover: "op_1", takeoverAttempt: 2 },
  });
  // Given up before it was open: the annex may promise again, and then nothing is left of it.
  await pair.set({ orderFailover: null });
  const withdrawn = { ...order, attempt: 3, withdrawn: true };
  expect((await pair.asAnnex(says({ takeover: order }))).annex?.takeover).toEqual(withdrawn);
  await pair.asAnnex(says({ takeover: withdrawn }));
  expect(await pair.row()).toMatchObject({ takeoverFailover: null });
  expect((await pair.asAnnex(says({ takeover: withdrawn }))).annex?.takeover).toBeUndefined();
  // What was open is never taken back.
  await pair.asAnnex(says({ takeover: { ...order, attempt: 4, open: true } }));
  expect((await pair.asAnnex(says({}))).annex?.takeover).toBeUndefined();
});

test("grants that a cell gave itself are no evidence of a restore; another's are", async () => {
  const { asOrigin } = await newPair();
  expect((await asOrigin({ wantLease: true, ...knows(0, 0) })).lease?.grant).toBe(1);
  const silent = { wantLease: true, ...knows(0, 1), database: { grant: 900 } };
  expect((await asOrigin(silent)).lease?.grant).toBe(901);
  const answer = await asOrigin({ ...knows(0, 950), database: { grant: 950 } });
  expect(answer.leaseRefused).toContain("RECOVERING");
});

test("in a recovery, a database that was set back itself does not speak for its keys", async () => {
  const { origin, asOrigin } = await newPair();
  const presented = { revision: 0, epoch: 0, grant: 0 };
  await enterRecovery(control.database, { who: "test", text: "restored", presented }, 0);
  const seen = { grant: 5, grantSeen: 5, systemIdentifier: `1000-${origin}`, timeline: 1 };
  await control.database.read.update(cellTable).set(seen).where(eq(cellTable.id, origin));
  const claims = { ownership: { entries: [], last: true }, database: { grant: 2 } };
  const first = await asOrigin(claims);
  expect([first.leaseRefused, first.report]).toEqual([
    expect.stringContaining("TIME_TRAVEL"),
    "nothing",
  ]);
  const heard = await control.database.read
    .select()
    .from(recoveryCell)
    .where(eq(recoveryCell.cell, origin));
  expect(heard.filter(({ state }) => state === "reported")).toEqual([]);
  await asOrigin(claims);
  const one = soleRow(
    await control.database.read.select().from(cellTable).where(eq(cellTable.id, origin)),
  );
  expect(one.state).toBe("quarantined");
});
