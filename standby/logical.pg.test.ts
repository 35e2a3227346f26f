/** A standby's stream between real databases: made, followed under load, split over partners, extended. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { protectTable } from "../cell/store/protect.ts";
import { CellError } from "../contract/errors.ts";
import { eventually, keepWriting, never } from "../moving/streams.fixture.ts";
import type { CellStore } from "../tests/cell-store.ts";
import { streamName } from "./names.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

const guard = ({ admin }: CellStore, table: string) =>
  protectTable(admin, { schema: "public", table, keyColumn: "tenant_id", keyspace: "default" });

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
  // PostgreSQL does not filter it: it would empty the table of every partner.
  await cells.a.admin.query(
    "begin; set local session_replication_role = replica; truncate notes; commit",
  );
  await cells.arrived(low);
  expect((await low.admin.query("select from notes")).rowCount).toBeGreaterThan(0);
  for (const pair of pairs) await provider.drop(pair, "there");
});

test("a table that comes later is told, brought in, and its rows are complete; one that cannot be followed is told", async () => {
  const annex = await cells.annex("sb-a-later");
  const pair = cells.pair(annex);
  await cells.tenant("later");
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  const table = `create table carts (tenant_id text not null, id integer not null, primary key (tenant_id, id));
    grant select, insert, update, delete on carts to shop_app`;
  await cells.a.owner(table);
  await guard(cells.a, "carts");
  await cells.a.app.query("insert into carts select 'later', g from generate_series(1, 5) g");
  const lacking = "public.carts (the standby's database does not have it, or not in this class)";
  expect((await provider.status(pair)).uncovered).toEqual([lacking]);
  await provider.refresh(pair); // Nothing breaks, nothing is brought in.
  expect(await provider.status(pair)).toMatchObject({ phase: "streaming", uncovered: [lacking] });

  await annex.owner(table);
  await guard(annex, "carts");
  await annex.admin.query("set session_replication_role = replica");
  await annex.admin.query("insert into carts values ('later', 3), ('residue', 1)");
  await annex.admin.query("reset session_replication_role");
  const late = "public.carts (it came after the stream began)";
  expect((await provider.status(pair)).uncovered).toEqual([late]);
  await provider.refresh(pair);
  await provider.refresh(pair);
  await cells.inStep(pair);
  await cells.a.app.query("insert into carts values ('later', 6)");
  await cells.arrived(annex);
  const carts = async () =>
    (await annex.admin.query("select tenant_id, id from carts order by id")).rows.map(
      ({ id }) => id,
    );
  expect(await carts()).toEqual([1, 2, 3, 4, 5, 6]);

  // Dropped and made anew under its name in the origin alone: another table.
  await cells.a.owner("drop table carts");
  await cells.a.owner(table);
  await guard(cells.a, "carts");
  await cells.a.app.query("insert into carts values ('later', 7)");
  await provider.refresh(pair);
  await cells.inStep(pair);
  expect(await carts()).toEqual([7]);
  expect(await provider.status(pair)).toMatchObject({ phase: "streaming", uncovered: [] });

  // As a part of the publication it would refuse the application's own updates.
  await cells.a.owner("alter table carts replica identity nothing");
  await provider.refresh(pair);
  await cells.a.app.query("delete from carts where id = 7");
  expect((await provider.status(pair)).uncovered).toEqual([
    "public.carts (the replica identity of carts does not hold tenant_id)",
  ]);
  await cells.a.owner("drop table carts");
  await provider.drop(pair, "there");
});

test("a slot that is lost is told, and the standby is made anew with all its rows", async () => {
  const annex = await cells.annex("sb-a-lost");
  const pair = cells.pair(annex);
  const name = streamName(pair.annex, "main");
  await cells.tenant("lost");
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  await annex.admin.query(`alter subscription ${name} disable`);
  expect(await provider.status(pair)).toMatchObject({
    phase: "stopped",
    reason: `subscription ${name} was switched off in cell sb-a-lost, store main`,
  });
  await eventually("the slot is free", async () => {
    const { rowCount } = await cells.a.admin.query(
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active",
      [name],
    );
    return rowCount === 1;
  });
  await cells.a.app.query("delete from notes where tenant_id = 'lost'");
  await annex.admin.query(`alter subscription ${name} enable`);
  expect(await provider.status(pair)).toMatchObject({
    phase: "stopped",
    reason: `slot ${name} is gone from cell cell-a, store main`,
  });
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  await cells.arrived(annex);
  expect(await cells.rowsOf(annex, "lost")).toEqual(await cells.rowsOf(cells.a, "lost"));

  // A change that cannot be applied: somebody wrote into the standby.
  await annex.admin.query("set session_replication_role = replica");
  await annex.admin.query("insert into currencies (code, name) values ('USD', 'written by hand')");
  await annex.admin.query("reset session_replication_role");
  await cells.a.admin.query("insert into currencies (code, name) values ('USD', 'dollar')");
  await eventually("the conflict is told", async () => {
    const { phase, reason } = await provider.status(pair);
    return phase === "stopped" && reason.includes("cannot go on");
  });
  await annex.admin.query("delete from currencies where code = 'USD'");
  await cells.arrived(annex);
  expect(await provider.status(pair)).toMatchObject({ phase: "streaming" });
  await provider.drop(pair, "there");
  await cells.a.admin.query("delete from currencies where code = 'USD'");
});

test("origin and annex may lie on one server, and an annex that serves is not copied over", async () => {
  const annex = await cells.annex("sb-a-near", cells.a);
  const pair = cells.pair(annex);
  await cells.tenant("near");
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  await cells.write(cells.a.app, "near");
  await cells.arrived(annex);
  const rows = await cells.rowsOf(annex, "near");
  expect(rows).toEqual(await cells.rowsOf(cells.a, "near"));
  await provider.drop(pair, "there");
  await cells.own(annex, "default/tenant/near", "active");
  await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  expect(await cells.rowsOf(annex, "near")).toEqual(rows);
  await provider.drop(pair, "there");
});

test("a grant that the mover lacks in the annex is told before anything is made, with what mends it", async () => {
  const annex = await cells.annex("sb-a-grant");
  const pair = cells.pair(annex);
  await annex.admin.query(
    "revoke execute on function pg_show_replication_origin_status() from shop_mover",
  );
  const refused = await provider.ensure(pair, never).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "DATABASE_UNFIT" });
  const [step] = refused instanceof CellError ? refused.nextSteps : [];
  await annex.admin.query(/^psql -c "(.*)"$/.exec(step ?? "")?.[1] ?? "");
  await provider.ensure(pair, never);
  await provider.drop(pair, "there");
});
