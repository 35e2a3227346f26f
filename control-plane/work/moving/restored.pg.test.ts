/**
 * The control plane's database is restored while moves are open: none goes on, each tenant has one owner
 * afterwards, and what the moves have left is removed.
 */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { MoveStep } from "../../../contract/move-api.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemRandom } from "../../../runtime/random.ts";
import type { CellStore } from "../../../tests/cell-store.ts";
import { eventually } from "../../control.fixture.ts";
import { activateApplied, readChanges } from "../../store/ownership-feed.ts";
import { enterRecovery } from "../../store/recovery-evidence.ts";
import { cell, fleet } from "../../store/schema.ts";
import { recoveryCell, recoveryClaim } from "../../store/schema-recovery.ts";
import { recoveryTurn } from "../recovery.ts";
import { type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

let fixture: MovingFixture;
beforeAll(async () => {
  fixture = await startMovingFixture();
});
afterAll(async () => {
  await fixture?.close();
});

/** As an agent does: all it is told, applied and read back. */
async function obey(store: CellStore): Promise<void> {
  const page = await readChanges(fixture.database.read, store.name, 0);
  const changes = page.changes.map(({ key, state, epoch, op, attempt }) => ({
    ...{ key, state, epoch, op, attempt },
  }));
  await store.agent.query("select from cellfleet.apply_ownership($1, null, 5000)", [
    JSON.stringify(changes),
  ]);
  await fixture.database.read
    .update(cell)
    .set({ appliedRevision: page.revision })
    .where(eq(cell.id, store.name));
  await activateApplied(fixture.database, store.name, page.revision, []);
}

/** What a cell says it owns, when it is asked. */
async function report(store: CellStore): Promise<void> {
  const { rows } = await store.admin.query<{ key: string; state: "active"; epoch: number }>(
    "select key, state, epoch::float8 as epoch from cellfleet.ownership",
  );
  await fixture.database.read
    .insert(recoveryClaim)
    .values(rows.map((row) => ({ ...row, cell: store.name })));
  await fixture.database.read
    .update(recoveryCell)
    .set({ state: "reported" })
    .where(eq(recoveryCell.cell, store.name));
}

async function recover(): Promise<void> {
  const { database, cells } = fixture;
  const stores = [cells.a, cells.b];
  const presented = { revision: 0, epoch: 0, grant: 0 };
  const text = "it was restored";
  await enterRecovery(database, { who: "this database", text, presented }, systemClock.nowMs());
  for (const store of stores) await report(store);
  const options = {
    ...{ database, clock: systemClock, random: systemRandom, leaseTtlMs: 1_200_000 },
    onError: (error: unknown) => {
      throw error;
    },
  };
  const mode = async () => (await database.read.select().from(fleet))[0]?.mode;
  while ((await mode()) === "recovering") {
    await recoveryTurn(options);
    for (const store of stores) await obey(store);
  }
  for (const store of stores) await obey(store);
}

/** The owner afterwards, and its epoch: above all that was seen. */
const ends: ReadonlyArray<readonly [MoveStep, string]> = [
  ["copying", "cell-a"],
  ["ready", "cell-a"],
  ["draining", "cell-a"],
  ["soaking", "cell-b"],
];

test.each(ends)("restored while a move is %s: %s owns the tenant, alone", async (step, owner) => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.rowsOf(cells.a, tenant);
  let goOn: () => void = () => {};
  const told = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let stands = false;
  const former = await fixture.lead({
    onBoundary: async (at) => {
      if (at.step !== step || at.when !== "after") return;
      stands = true;
      await told;
    },
  });
  const id = await fixture.begin([tenant], { soakMs: step === "soaking" ? 3_600_000 : 0 });
  if (step === "soaking") await fixture.until(id, (view) => view.step === "soaking");
  else await fixture.until(id, () => stands);
  await recover();
  goOn();
  await former.close();
  expect(await fixture.see(id)).toMatchObject({ step: "failed", state: "failed" });
  expect(await fixture.placed(tenant)).toMatch(new RegExp(`^${owner} \\d+ active$`));
  const next = await fixture.lead();
  await eventually(
    () => fixture.recorded(id),
    (left) => left === 0,
  );
  expect(await fixture.leftovers()).toEqual([]);
  const [here, there] = owner === "cell-a" ? [cells.a, cells.b] : [cells.b, cells.a];
  expect(await cells.rowsOf(here, tenant)).toEqual(rows);
  expect(await cells.countOf(there, tenant)).toBe(0);
  await cells.write(here.app, tenant);
  await next.close();
});

test("a stream of a move that nobody has heard of is removed, and no other", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const first = await fixture.lead();
  const soaking = await fixture.begin([tenant], { soakMs: 3_600_000 });
  await fixture.until(soaking, ({ step }) => step === "soaking");
  const stranger = "mv_0neverheardof_0";
  await cells.b.admin.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [
    stranger,
  ]);
  const next = await fixture.lead();
  const left = await eventually(fixture.leftovers, (lines) =>
    lines.every((line) => !line.includes(stranger)),
  );
  expect(left.filter((line) => line.includes("rv_"))).toHaveLength(3);
  const back = await fixture.begin([tenant], {}, soaking);
  expect(await fixture.untilOver(back)).toMatchObject({ step: "done" });
  await first.close();
  await next.close();
});
