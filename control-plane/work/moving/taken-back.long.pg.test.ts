/** What does not work out: cancelled, blocked, over budget, in the wrong shape. The tenant is served all the same. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { protectTable } from "../../../cell/store/protect.ts";
import type { MoveStep } from "../../../contract/move-api.ts";
import { storeRoles } from "../../../tests/cell-store.ts";
import { canAbandon, switchSteps } from "../../core/move/move-state.ts";
import { type Executor, type MovingFixture, startMovingFixture } from "./moving.fixture.ts";
import type { MoveBoundary } from "./world.ts";

let fixture: MovingFixture;
let executor: Executor;
let onBoundary: MoveBoundary = async () => {};

beforeAll(async () => {
  fixture = await startMovingFixture();
});
afterAll(async () => {
  await fixture?.close();
});
beforeEach(async () => {
  onBoundary = async () => {};
  executor = await fixture.lead({ onBoundary: (at) => onBoundary(at) });
});
afterEach(async () => {
  await executor?.close();
});

/** As if nothing had been begun: rows, epoch, room, and nobody is kept out. */
async function expectUntouched(tenant: string, rows: number): Promise<void> {
  const { cells } = fixture;
  expect(await fixture.placed(tenant)).toBe("cell-a 1 active");
  expect(await cells.countOf(cells.b, tenant)).toBe(0);
  expect(await fixture.leftovers()).toEqual([]);
  expect(await cells.countOf(cells.a, tenant)).toBe(rows);
  await cells.write(cells.a.app, tenant);
}

const albums = {
  ...{ schema: "public", table: "albums", keyColumn: "tenant_id", keyspace: "default" },
};

const cancellable: readonly MoveStep[] = [
  ...(["preflight", "preparing", "copying", "catching-up", "verifying", "ready"] as const),
  ...switchSteps,
];

describe("cancelled at", () => {
  test.each(cancellable)("%s: the source serves as before", async (step) => {
    expect(canAbandon(step) || switchSteps.includes(step)).toBe(true);
    const tenant = await fixture.createTenant();
    const rows = await fixture.cells.countOf(fixture.cells.a, tenant);
    const used = await fixture.used();
    onBoundary = async (at) => {
      if (at.step === step && at.when === "before") await fixture.ask(at.op, { wish: "cancel" });
    };
    const id = await fixture.begin([tenant], { pauseBudgetMs: 5000 });
    const over = await fixture.untilOver(id);
    expect(over).toMatchObject({ step: "cancelled", state: "cancelled", failure: null });
    expect(await fixture.recorded(id)).toBe(0);
    expect(await fixture.used()).toEqual(used);
    await expectUntouched(tenant, rows);
  });

  test("planned, before it had its turn", async () => {
    const tenant = await fixture.createTenant();
    const rows = await fixture.cells.countOf(fixture.cells.a, tenant);
    await executor.close();
    const id = await fixture.begin([tenant]);
    await fixture.ask(id, { wish: "cancel" });
    executor = await fixture.lead();
    expect(await fixture.untilOver(id)).toMatchObject({ step: "cancelled" });
    await expectUntouched(tenant, rows);
  });
});

test("a transaction that does not end keeps the tenant where it is: tried, released, given up by name", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.countOf(cells.a, tenant);
  const id = await fixture.begin([tenant], { switchTriesMax: 2, switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  const writer = await cells.a.connect(storeRoles.appRole);
  await writer.query("begin");
  await writer.query("update orders set quantity = quantity where tenant_id = $1", [tenant]);
  await fixture.ask(id, { wish: "switch" });
  await fixture.until(id, ({ tries, step }) => tries === 1 && step === "ready");
  // Between two tries it is served.
  expect(await fixture.placed(tenant)).toBe("cell-a 1 active");
  const over = await fixture.untilOver(id);
  await writer.query("rollback");
  expect(over).toMatchObject({ step: "failed", state: "failed", tries: 2 });
  expect(over.failure).toMatchObject({ code: "FENCE_BLOCKED" });
  expect(over.failure?.message).toContain("process ");
  await expectUntouched(tenant, rows);
});

test("a switch that takes longer than the budget is taken back, and tried again", async () => {
  const tenant = await fixture.createTenant();
  let delayed = 0;
  const spoken: { readonly step: string; readonly attempt: number }[] = [];
  onBoundary = async ({ op, step, when }) => {
    if ((step === "closing" || step === "releasing") && when === "after") {
      const said = "select attempt from cellfleet.gate_order where op = $1";
      const { rows } = await fixture.cells.a.admin.query<{ attempt: number }>(said, [op]);
      spoken.push({ step, attempt: rows[0]?.attempt ?? 0 });
    }
    if (step !== "draining" || when !== "before" || delayed > 0) return;
    delayed += 1;
    await new Promise((resolve) => setTimeout(resolve, 600));
  };
  const id = await fixture.begin([tenant], { pauseBudgetMs: 500 });
  const back = await fixture.until(id, ({ tries, step }) => tries === 1 && step === "ready");
  expect(back.headline).toContain("taken back");
  const over = await fixture.untilOver(id);
  expect(over).toMatchObject({ step: "done", tries: 2 });
  expect(over.pause?.total).toBeLessThan(500);
  // What the way back still sends comes too late for the next try, and the same the other way.
  expect(spoken.map(({ step }) => step)).toEqual(["closing", "releasing", "closing"]);
  expect(new Set(spoken.map(({ attempt }) => attempt)).size).toBe(3);
  expect(await fixture.leftovers()).toEqual([]);
});

test("rows that differ before the switch end the move, with the evidence", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.countOf(cells.a, tenant);
  onBoundary = async ({ step, when }) => {
    if (step !== "verifying" || when !== "before") return;
    await cells.b.admin.query("set session_replication_role = replica");
    await cells.b.admin.query("delete from notes where tenant_id = $1", [tenant]);
    await cells.b.admin.query("set session_replication_role = origin");
  };
  const id = await fixture.begin([tenant]);
  const over = await fixture.untilOver(id);
  expect(over).toMatchObject({ step: "failed", failure: { code: "MOVE_MISMATCH" } });
  expect(over.verifications.at(-1)).toMatchObject({ equal: false, phase: "before-switch" });
  await expectUntouched(tenant, rows);
});

test("tables that changed in one cell alone end the move before anybody waits", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.countOf(cells.a, tenant);
  const id = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  await cells.b.owner("alter table notes add column mood text");
  await fixture.ask(id, { wish: "switch" });
  const over = await fixture.untilOver(id);
  await cells.b.owner("alter table notes drop column mood");
  expect(over).toMatchObject({ step: "failed", tries: 0, failure: { code: "MOVE_STREAM_BROKEN" } });
  await expectUntouched(tenant, rows);
});

test("a table that came to both cells after the move began ends it, and no row of it is lost", async () => {
  const { cells } = fixture;
  const both = [cells.a, cells.b];
  const tenant = await fixture.createTenant();
  const rows = await cells.countOf(cells.a, tenant);
  const id = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  // While it is paused nobody looks: the last look before requests are held has to see it.
  await fixture.ask(id, { paused: true });
  for (const { owner } of both) {
    await owner(
      `create table albums (tenant_id text primary key); grant select, insert on albums to ${storeRoles.appRole}`,
    );
  }
  for (const { admin } of both) await protectTable(admin, albums);
  await cells.a.app.query("insert into albums values ($1)", [tenant]);
  await fixture.ask(id, { wish: "switch", paused: false });
  const over = await fixture.untilOver(id);
  expect(over).toMatchObject({ step: "failed", tries: 0, failure: { code: "MOVE_STREAM_BROKEN" } });
  expect(over.failure?.message).toContain("public.albums was added after the move began");
  const kept = await cells.a.admin.query("select from albums where tenant_id = $1", [tenant]);
  expect(kept.rowCount).toBe(1);
  await expectUntouched(tenant, rows);

  // One that is dropped in both has nothing to lose.
  const next = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(next, ({ step }) => step === "ready");
  for (const { owner } of both) await owner("drop table albums");
  await fixture.ask(next, { wish: "switch" });
  expect(await fixture.untilOver(next)).toMatchObject({ step: "done" });
  for (const { admin } of both) {
    await admin.query("select cellfleet.forget_table($1, $2)", [albums.schema, albums.table]);
  }
});

test("a slot that somebody dropped ends the move by name", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.countOf(cells.a, tenant);
  const id = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  await cells.b.admin.query(
    `do $$ declare s text; begin
       for s in select subname from pg_subscription where subname like 'mv_%'
         and subdbid = (select oid from pg_database where datname = current_database()) loop
         execute format('alter subscription %I disable', s);
       end loop; end $$`,
  );
  const over = await fixture.untilOver(id);
  expect(over).toMatchObject({ step: "failed", failure: { code: "MOVE_STREAM_BROKEN" } });
  await expectUntouched(tenant, rows);
});
