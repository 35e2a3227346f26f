/**
 * The new home of a tenant dies soon after a move (corrections A13): its standby has the rows before the
 * switch, and the source's copy stands in until the standby has passed it.
 */
import { type SQL, sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { standby } from "../../store/schema-standby.ts";
import { type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

let fixture: MovingFixture;

beforeAll(async () => {
  fixture = await startMovingFixture();
  await fixture.database.read.insert(standby).values({
    ...{ annex: "sb-cell-b-cell-c", origin: fixture.cells.b.name, host: "cell-c" },
    ...{ provider: "logical", bucketLo: 0, bucketHi: 255, state: "ready" },
  });
  await fixture.lead();
}, 60_000);

afterAll(() => fixture?.close());

/** The annex's agent says that a heartbeat was applied there which the target made at this time. */
const hears = (at: SQL) =>
  fixture.database.read.update(standby).set({ heartbeatAgeMs: 0, reportedAt: at });
const longAgo = sql`clock_timestamp() - interval '1 minute'`;
/** Behind the copy, and before the switch. */
const afterCopy = (
  move: string,
) => sql`(select max((s ->> 'at')::timestamptz) + interval '1.01 seconds'
  from cellfleet_control.op as o cross join jsonb_array_elements(o.steps) as s
 where o.id = ${move} and s ->> 'step' = 'catching-up')`;
const now = sql`clock_timestamp() + interval '1 minute'`;

test("no switch before the target's standby has the copy, no purge before it has the switch", async () => {
  const tenant = await fixture.createTenant();
  await hears(longAgo);
  const id = await fixture.begin([tenant]);
  await fixture.until(id, ({ headline }) => headline.includes("has what was copied"));
  expect(await fixture.placed(tenant)).toBe(`${fixture.cells.a.name} 1 active`);

  // As long as it hears nothing newer than the copy, the source keeps its rows after the switch too.
  await hears(afterCopy(id));
  const resting = await fixture.until(id, ({ headline }) => headline.includes("keeps its rows"));
  expect(resting.step).toBe("soaking");
  expect(await fixture.placed(tenant)).toBe(`${fixture.cells.b.name} 2 active`);
  expect(await fixture.cells.countOf(fixture.cells.a, tenant)).toBeGreaterThan(0);

  await hears(now);
  expect((await fixture.untilOver(id)).step).toBe("done");
  expect(await fixture.cells.countOf(fixture.cells.a, tenant)).toBe(0);
});

test("a standby that is not ready is not waited for", async () => {
  const tenant = await fixture.createTenant();
  await hears(longAgo);
  await fixture.database.read.update(standby).set({ state: "broken" });
  const id = await fixture.begin([tenant]);
  expect((await fixture.untilOver(id)).step).toBe("done");
});
