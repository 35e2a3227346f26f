/**
 * The new home of a tenant dies while its move soaks (corrections A13): the source, which followed it, is cut
 * off and serves again, with what was written in the new home since. Real databases.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../../runtime/clock.ts";
import { parseLsn } from "../../core/failover/rpo-position.ts";
import { returnSoaking, soakingInto } from "../../store/failover/motion.ts";
import { failoverKey } from "../../store/schema-standby.ts";
import { type MovingFixture, startMovingFixture } from "../moving/moving.fixture.ts";
import { failoverId } from "./report.fixture.ts";
import { cutWayBack } from "./salvage-soak.ts";

let fixture: MovingFixture;

beforeAll(async () => {
  fixture = await startMovingFixture({ apart: true });
  await fixture.lead();
}, 60_000);

afterAll(() => fixture?.close());

test("the source of a soaking move serves again, up to where the way back had come", async () => {
  const { cells, database } = fixture;
  const tenant = await fixture.createTenant();
  const id = await fixture.begin([tenant], { soakMs: 600_000 });
  await fixture.until(id, ({ step }) => step === "soaking");
  await cells.write(cells.b.app, tenant, 99);
  const { rows } = await cells.b.admin.query("select pg_current_wal_lsn()::text as lsn");
  await fixture.until(id, () => true);
  const arrived = async () => {
    const { rowCount } = await cells.a.admin.query(
      "select from orders where tenant_id = $1 and quantity = 99",
      [tenant],
    );
    return rowCount === 1;
  };
  while (!(await arrived())) await systemClock.sleep(10);
  await cells.serverOf(cells.b).halt("kill");

  const [move] = await soakingInto(database.read, cells.b.name);
  if (move === undefined) throw new Error("no move soaks");
  const world = { database, clock: systemClock, resolve: async () => cells.a.moverUrl };
  const position = await cutWayBack(world, move);
  // All of the last write is there, and nothing that came after it.
  expect(position).not.toBeNull();
  expect(parseLsn(position)).toBeLessThanOrEqual(parseLsn(rows[0]?.lsn) ?? 0n);
  const left = await cells.a.admin.query("select from pg_subscription where subname ~ '^rv_'");
  expect(left.rowCount).toBe(0);

  const run = { id: failoverId, cell: cells.b.name, attempt: 1 };
  const returned = await database.transaction((tx) => returnSoaking(tx, move.id, run, position));
  expect(returned).toBe(true);
  expect(await fixture.placed(tenant)).toBe(`${cells.a.name} 3 pending`);
  const fates = await database.read.select().from(failoverKey);
  expect(fates.map(({ fate, target, remoteLsn }) => [fate, target, remoteLsn])).toEqual([
    ["returned", cells.a.name, position],
  ]);
  expect((await fixture.see(id)).step).toBe("failed");
  // Its executor removes nothing of the source any more.
  expect(await cells.countOf(cells.a, tenant)).toBe(24);
  // Cut again after a crash: nothing is there, and nothing is known.
  expect(await cutWayBack(world, move)).toBeNull();
});
