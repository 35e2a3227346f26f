/** A cell's database that was started anew, after its cell had lived by promises of its partners. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { OriginSeen } from "../../contract/standby-api.ts";
import type { JsonClient } from "../../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  type AgentChange,
  type ControlFixture,
  callAgent,
  eventually,
  openCell,
  soleRow,
  startControl,
} from "../control.fixture.ts";
import { readmitCell } from "../store/lease.ts";
import { cell as cellTable } from "../store/schema.ts";
import { standby } from "../store/schema-standby.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("words"));
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const first = "2026-11-01T00:00:00.000Z";
const second = "2026-11-01T01:00:00.000Z";
let number = 0;

/** The control plane granted 1, then was away; the cell gave itself grants up to 9 by the promise of its partner. */
async function afterAnAbsence() {
  number += 1;
  const [origin, annex] = [`cell-${number}`, `sb-cell-${number}-host`] as const;
  const db = control.database.read;
  const agents: JsonClient[] = [];
  for (const one of [origin, annex]) {
    await openCell(control.database, one);
    agents.push(await control.client("agent", one));
  }
  await openCell(control.database, `host-${number}`);
  await db.insert(standby).values({
    ...{ annex, origin, host: `host-${number}`, provider: "logical", bucketLo: 0, bucketHi: 255 },
    ...{ state: "ready", listedAt: 1 },
  });
  const asCell = (boot: string, grant: number, lsn: string, change: AgentChange = {}) =>
    callAgent(agents[0] as JsonClient, origin, {
      ...{
        wantLease: true,
        origin: { listRevision: 1, failsafeMs: 0, controlGrant: 1, position: { grant, lsn } },
      },
      ...change,
      database: { boot, grant, ...change.database },
    });
  const asAnnex = (seen: Partial<OriginSeen>, waitMs = 0) =>
    callAgent(agents[1] as JsonClient, annex, {
      waitMs,
      origin: { listRevision: 0, failsafeMs: 0 },
      annex: {
        ...{ origin, sees: "alive", heartbeatAgeMs: 10, promiseRemainingMs: 0 },
        originSeen: {
          ...{
            systemIdentifier: `1000-${origin}`,
            timeline: 1,
            boot: first,
            grant: 9,
            lsn: "0/900",
          },
          ...seen,
        },
      },
    });
  expect((await asCell(first, 0, "0/100", { origin: undefined })).lease?.grant).toBe(1);
  return {
    ...{ asCell, asAnnex },
    state: async () =>
      soleRow(await db.select().from(cellTable).where(eq(cellTable.id, origin))).state,
    standbyState: async () =>
      soleRow(await db.select().from(standby).where(eq(standby.annex, annex))).state,
    readmit: () => control.database.transaction((tx) => readmitCell(tx, origin)),
    asked: async () =>
      soleRow(await db.select().from(standby).where(eq(standby.annex, annex))).askedAt !== null,
  };
}

test("a cell that was set back to a moment of the absence is quarantined, whatever it was granted before", async () => {
  const { asCell, asAnnex, state, asked } = await afterAnAbsence();
  // Grant 5 is later than any that the control plane knows.
  const call = asCell(second, 5, "0/500");
  await eventually(asked, (was) => was);
  await asAnnex({});
  // Where the word came too late for the call that was held, the next one hears it.
  const refused = (await call).leaseRefused ?? (await asCell(second, 5, "0/500")).leaseRefused;
  expect(refused).toContain("TIME_TRAVEL");
  expect(await state()).toBe("active");
  expect((await asCell(second, 5, "0/500")).leaseRefused).toContain("TIME_TRAVEL");
  expect(await state()).toBe("quarantined");
});

test("a restart that has all that was seen gets its lease, as soon as the partner has said so", async () => {
  const { asCell, asAnnex, asked } = await afterAnAbsence();
  const waiting = asAnnex({}, 20_000);
  const call = asCell(second, 9, "0/900");
  // The partner is answered at once, and calls again.
  await waiting;
  expect(await asked()).toBe(true);
  await asAnnex({});
  const lease = (await call).lease ?? (await asCell(second, 9, "0/900")).lease;
  expect(lease?.grant).toBe(10);
  expect((await asCell(second, 10, "0/A00")).lease?.grant).toBe(11);
});

test("a start that the partner vouched for is not held up by what it wrote since", async () => {
  const { asCell, asAnnex } = await afterAnAbsence();
  await asAnnex({ boot: second, grant: 12, lsn: "0/C00" });
  expect((await asCell(second, 11, "0/B00")).lease?.grant).toBe(12);
});

test("while it lives by promises it is told nothing, neither yes nor no, before the partner speaks", async () => {
  const { asCell, asAnnex } = await afterAnAbsence();
  const held = await asCell(second, 9, "0/900");
  expect([held.lease, held.leaseRefused]).toEqual([undefined, undefined]);
  // What it has written itself meanwhile does not speak against it, also where a call was overtaken.
  await asAnnex({ grant: 10, lsn: "0/A00" });
  expect((await asCell(second, 9, "0/900")).leaseRefused).toContain("TIME_TRAVEL");
  await asAnnex({ grant: 11, lsn: "0/B00" });
  expect((await asCell(second, 10, "0/A00")).leaseRefused).toContain("TIME_TRAVEL");
  expect((await asCell(second, 11, "0/B00")).lease?.grant).toBe(12);
});

test("a person who lets the cell back gives its standbys up: they have what it lacks", async () => {
  const { asCell, asAnnex, state, standbyState, readmit } = await afterAnAbsence();
  await asAnnex({});
  await asCell(second, 5, "0/500");
  await asCell(second, 5, "0/500");
  expect([await state(), await standbyState()]).toEqual(["quarantined", "ready"]);
  await readmit();
  expect([await state(), await standbyState()]).toEqual(["cordoned", "leaving"]);
  await asAnnex({});
  expect((await asCell(second, 5, "0/500")).lease).toBeDefined();
  // Also after one more start of it, while they are being removed.
  expect((await asCell("2026-11-01T02:00:00.000Z", 10, "0/600")).lease).toBeDefined();
});
