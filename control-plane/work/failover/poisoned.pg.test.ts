/** A tenant brings its new cell down: nothing more is adopted, the suspects are named, the others go on when somebody says so. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listEvents } from "../../store/events.ts";
import { recordSeen } from "../../store/failover/witnesses.ts";
import { failoverKey } from "../../store/schema-standby.ts";
import { type FailingFixture, keyOf, startFailingFixture } from "./failing.fixture.ts";

let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
  await fixture.lead({ patience: { canaryMs: 60 } });
});
afterAll(async () => {
  await fixture.close();
});

const fatesOf = async (id: string, fate: string) =>
  (
    await fixture.database.read.select().from(failoverKey).where(eq(failoverKey.failover, id))
  ).filter((one) => one.fate === fate);

test.concurrent("a canary kills the database that it came to: halted, named, resumed without it", async () => {
  const fleet = await fixture.fleet({ tenants: 20 });
  const [annex] = fleet.annexes;
  annex.onApplied = () => {
    annex.boot = "2";
    annex.onApplied = () => {};
  };
  const id = await fleet.begin();
  const stopped = await fixture.until(id, ({ step }) => step === "halted");
  const quarantined = await fatesOf(id, "quarantined");
  // The two canaries of that annex, and nobody else: those of the other one are as well as before.
  expect(quarantined.map(({ wave, target }) => `${wave} ${target}`)).toEqual(
    Array.from({ length: 2 }, () => `0 ${annex.id}`),
  );
  expect(stopped.headline).toContain(`cellctl failover resume ${id}`);
  for (const { key } of quarantined) expect(stopped.headline).toContain(key);
  expect(quarantined[0]?.reason).toContain("its database was started again");
  const placed = await fleet.placed();
  for (const { key } of quarantined) {
    expect(placed[key.split("/")[2] ?? ""]).toBe(`${annex.id} 4 unavailable`);
  }
  expect((await fatesOf(id, "adopted")).length).toBe(2);
  const untouched = Object.values(placed).filter((one) => one === `${fleet.origin} 3 active`);
  expect(untouched).toHaveLength(16);
  const events = await listEvents(fixture.database.read, 0, 1000);
  expect(events.map(({ kind }) => kind)).toContain("failover.poisoned");
  await fixture.wish(id, "resume");
  const run = await fixture.until(id, ({ headline }) => headline.includes("without a standby"));
  expect(run.progress).toMatchObject({ keys: 20, adopted: 18, quarantined: 2 });
});

test.concurrent("a symptom that shows while the new owners are verified halts as well, and blames the last wave", async () => {
  const fleet = await fixture.fleet({ tenants: 8 });
  const [annex] = fleet.annexes;
  const id = await fleet.begin();
  const end = await fixture.until(id, ({ step }) => step !== "confirmed");
  expect(end.id).toBe(id);
  const bad = keyOf(fleet.tenants[3] ?? "");
  for (const one of fleet.annexes) {
    one.onApplied = (keys) => {
      if (keys.includes(bad)) one.appReachable = false;
    };
  }
  const run = await fixture.until(id, ({ step }) => step === "halted" || step === "done");
  expect(run.step).toBe("halted");
  const names = (await fatesOf(id, "quarantined")).map(({ key }) => key);
  expect(names).toContain(bad);
  expect(run.evidence.poisoned?.[0]?.sign).toContain("cannot reach the application");
  expect(annex.id).toContain("sb-");
});

test.concurrent("of those that came together the one that had a request cut off is quarantined, the others are served on", async () => {
  const fleet = await fixture.fleet({ tenants: 20 });
  const [annex] = fleet.annexes;
  let came: readonly string[] = [];
  // A request of the first one brings the application down; of the other many were answered with failures.
  annex.onApplied = (keys) => {
    if (annex.appReachable) came = keys;
    annex.appReachable = false;
  };
  const routers = setInterval(() => {
    const [bad = "", other = ""] = came;
    if (bad === "") return;
    const worst = [
      { key: bad, open: 1, failed: 1 },
      { key: other, open: 0, failed: 200 },
      { key: "default/tenant/of-before", open: 9, failed: 0 },
    ];
    const seen = [{ cell: annex.id, requests: 20, failures: 6, worst }];
    void recordSeen(fixture.database.read, { router: `router-${annex.id}`, seen } as never);
  }, 30);
  const id = await fleet.begin();
  const run = await fixture.until(id, ({ step }) => step === "halted" || step === "done");
  clearInterval(routers);
  expect(run.step).toBe("halted");
  const quarantined = await fatesOf(id, "quarantined");
  expect(quarantined.map(({ key }) => key)).toEqual([came[0]]);
  expect(quarantined[0]?.reason).toMatch(
    /cannot reach the application; 1 of its requests were cut off, 1 were answered with a failure$/,
  );
  expect(run.headline).toContain("1 that came with them are served on");
  expect(run.evidence.poisoned?.[0]).toMatchObject({ suspects: 1, spared: 1 });
  const placed = await fleet.placed();
  const other = came[1]?.split("/")[2] ?? "";
  expect(placed[other]).toMatch(/ 4 (active|pending)$/);
});

test.concurrent("what was wrong before the first key came is nobody's fault", async () => {
  const fleet = await fixture.fleet({ tenants: 6 });
  fleet.annexes[0].appReachable = false;
  const id = await fleet.begin();
  const run = await fixture.until(id, ({ step }) => step === "halted" || step === "done");
  expect(run.step).toBe("done");
  expect(run.progress).toMatchObject({ adopted: 6, quarantined: 0 });
});
