/** A standby's stream between real databases: made, followed under load, split over partners, extended. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, keepWriting, never } from "../moving/streams.fixture.ts";
import { guardedTables } from "../moving/two-cells.fixture.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

test("rows are copied and followed while they change, and the annex serves none of them", async () => {
  const annex = await cells.annex("sb-cell-a-cell-b");
  const pair = cells.pair(annex);
  await cells.tenant("acme");
  expect(await provider.status(pair)).toMatchObject({
    phase: "absent",
    uncovered: expect.any(Array),
  });
  const writer = keepWriting(cells, await cells.a.connect(), "acme");
  await provider.ensure(pair, never);
  const begun = writer.written();
  await cells.inStep(pair);
  await eventually("writes behind the copy", async () => writer.written() > begun + 5);
  await writer.stop();
  await cells.a.app.query("delete from notes where tenant_id = 'acme'");
  await cells.arrived(annex);
  const rows = await cells.rowsOf(annex, "acme");
  expect(rows).toEqual(await cells.rowsOf(cells.a, "acme"));
  expect([rows["notes"], (await annex.app.query("select from orders")).rowCount]).toEqual(["", 0]);
  const status = await provider.status(pair);
  expect(status).toMatchObject({ phase: "streaming", reason: "", uncovered: [] });
  expect(status.heartbeatAgeMs).toBeLessThan(10_000);
  expect(status.lagBytes).not.toBeNull();
  // Everything that stands is left as it is.
  await provider.ensure(pair, never);
  expect(await provider.status(pair)).toMatchObject({ phase: "streaming" });
  expect(await cells.rowsOf(annex, "acme")).toEqual(rows);
  await provider.drop(pair, "there");
  expect(await provider.status(pair)).toMatchObject({ phase: "absent" });
});

test("two partners share the tenants by bucket, and both have what is everybody's", async () => {
  const [low, high] = [await cells.annex("sb-a-low"), await cells.annex("sb-a-high")];
  const pairs = [cells.pair(low, { lo: 0, hi: 127 }), cells.pair(high, { lo: 128, hi: 255 })];
  const tenants = Array.from({ length: 12 }, (_, n) => `shared-${n}`);
  for (const tenant of tenants) await cells.tenant(tenant, 1);
  for (const pair of pairs) await provider.ensure(pair, never);
  for (const pair of pairs) await cells.inStep(pair);
  for (const tenant of tenants) await cells.write(cells.a.app, tenant);
  await cells.a.admin.query("update currencies set name = 'changed' where code = 'SEK'");
  for (const annex of [low, high]) await cells.arrived(annex);
  for (const tenant of tenants) {
    const [home, other] = cells.bucket(tenant) < 128 ? [low, high] : [high, low];
    expect(await cells.rowsOf(home, tenant)).toEqual(await cells.rowsOf(cells.a, tenant));
    expect(await cells.countOf(other, tenant)).toBe(0);
  }
  const currencies = "select code, name from currencies order by code";
  for (const annex of [low, high]) {
    expect((await annex.admin.query(currencies)).rows).toEqual([
      { code: "EUR", name: "from the migration" },
      { code: "SEK", name: "changed" },
    ]);
  }
  expect(guardedTables.length).toBe(4);
  for (const pair of pairs) await provider.drop(pair, "there");
});
