/** Annexes that are not prepared when an executor ends: the next one waits for them itself. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { findRun } from "../../store/failover/evidence.ts";
import { standby } from "../../store/schema-standby.ts";
import { type FailingFixture, startFailingFixture } from "./failing.fixture.ts";
import { settle } from "./fake-annexes.fixture.ts";

let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
});
afterAll(async () => {
  await fixture.close();
});

test("an executor that is told to stop leaves no annex out that only had no time to answer", async () => {
  const { database } = fixture;
  const fleet = await fixture.fleet({ tenants: 8 });
  const [slow] = fleet.annexes;
  slow.recordsOpen = false;
  const first = await fixture.lead({ patience: { annexMs: 60_000 } });
  const id = await fleet.begin();
  await fixture.until(id, ({ step }) => step === "adopting");
  await systemClock.sleep(100); // It waits for the annex's word now.
  await first.close();
  const kept = must(await findRun(database.read, id), id);
  expect(kept.evidence.annexes[slow.id]?.status).toBe("severed");

  // Its agent says so at last, to whoever leads next.
  slow.recordsOpen = true;
  await settle(database, slow);
  await database.read
    .update(standby)
    .set({ updatedAt: new Date() })
    .where(eq(standby.annex, slow.id));
  await fixture.lead();
  const run = await fixture.until(id, ({ step }) => step === "reprotecting" || step === "done");
  expect(run.progress).toMatchObject({ keys: 8, adopted: 8, unavailable: 0 });
  expect(run.evidence.annexes[slow.id]?.status).toBe("severed");
});

test("one that patience ran out for is left out, by name, and its keys are unavailable", async () => {
  const fleet = await fixture.fleet({ tenants: 8 });
  const [slow] = fleet.annexes;
  slow.recordsOpen = false;
  await fixture.lead({ patience: { annexMs: 200 } });
  const id = await fleet.begin();
  const run = await fixture.until(id, ({ step }) => step === "reprotecting" || step === "done");
  expect(run.evidence.annexes[slow.id]).toMatchObject({
    ...{ status: "left-out", reason: "its agent has not recorded that the stream is cut" },
  });
  expect(run.progress.unavailable).toBeGreaterThan(0);
});
