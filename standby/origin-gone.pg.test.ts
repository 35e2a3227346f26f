/** What has to go without the origin: telling, cutting and dropping, also in the middle of a copy. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, never } from "../moving/streams.fixture.ts";
import { openClient } from "../tests/cell-store.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

const copySlots = "select from pg_replication_slots where slot_name ~ '^pg_[0-9]+_sync_'";

test("a heartbeat's age is told by this side's clock, however far the origin's is off", async () => {
  const { admin } = await cells.annex("sb-clock");
  const arrive = (at: string) =>
    admin.query(
      `insert into cellfleet.heartbeat (origin, beat, at) values ('cell-a', 1, clock_timestamp() + $1::interval)
       on conflict (origin) do update set at = excluded.at`,
      [at],
    );
  const ageMs = async () => {
    const { rows } = await admin.query<{ age: number | null }>(
      "select cellfleet.heartbeat_age_ms('cell-a') as age",
    );
    return rows[0]?.age ?? null;
  };
  await admin.query("set session_replication_role = replica");
  expect(await ageMs()).toBeNull();
  for (const off of ["1 hour", "-1 hour"]) {
    await admin.query("delete from cellfleet.heartbeat_seen");
    await arrive(off);
    expect(await ageMs()).toBeLessThan(3000);
    // It was on its way for a minute: a stream that is that far behind.
    await arrive(`${off} -60 seconds`);
    expect(await ageMs()).toBeGreaterThan(59_000);
    await arrive(off);
    expect(await ageMs()).toBeLessThan(3000);
  }
});

test("the origin dies: what is in step says so, what was copied is cut and dropped all the same, and nothing is left at the origin", async () => {
  const [whole, half] = [await cells.annex("sb-whole"), await cells.annex("sb-half")];
  const pairs = [cells.pair(whole), cells.pair(half)] as const;
  await cells.tenant("acme");
  await half.owner("create unique index only_one on notes ((true))");
  for (const pair of pairs) await provider.ensure(pair, never);
  await cells.inStep(pairs[0]);
  expect(await provider.status(pairs[1])).toMatchObject({ phase: "copying" });
  await eventually("the copy is told to fail", async () => {
    const { phase, reason } = await provider.status(pairs[1]);
    return phase === "stopped" && reason.includes("the copy of notes fails again and again");
  });
  // A copy that failed has left its slot.
  expect((await cells.a.admin.query(copySlots)).rowCount).toBeGreaterThan(0);
  const server = cells.serverOf(cells.a);
  await cells.arrived(whole);
  await server.halt("immediate");
  const alone = { phase: "streaming", reason: "", lagBytes: null };
  expect(await provider.status(pairs[0])).toMatchObject(alone);
  const severed = await provider.sever(pairs[0]);
  expect(severed.stores[0]?.remoteLsn).toMatch(/\//);
  await expect(provider.ensure(pairs[1], never)).rejects.toMatchObject({
    code: "CELL_DATABASE_UNREACHABLE",
  });
  expect(await provider.sever(pairs[1])).toMatchObject({ stores: [{ name: "main" }] });
  for (const pair of pairs) await provider.drop(pair, "gone");
  for (const pair of pairs) expect(await provider.status(pair)).toMatchObject({ phase: "severed" });
  await server.restart("fast");
  const origin = await openClient(server.url("cell-a"));
  for (const pair of pairs) await provider.drop(pair, "there");
  await eventually("no slot is left", async () => {
    const { rowCount } = await origin.query("select from pg_replication_slots");
    return rowCount === 0;
  });
  await origin.end();
});
