/** Standbys are made, announced, mended and removed, whoever is killed in between. */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { opIdSchema } from "../../../contract/ids.ts";
import { eventually } from "../../control.fixture.ts";
import { coverageOf } from "../../core/standby/buckets.ts";
import { isAdoptable, type StandbyView } from "../../core/standby/standby-view.ts";
import { listEvents } from "../../store/events.ts";
import { insertOp } from "../../store/ops.ts";
import { op, placement } from "../../store/schema.ts";
import { move } from "../../store/schema-moves.ts";
import { failover } from "../../store/schema-standby.ts";
import { applyChange } from "../../store/standby/record.ts";
import { type KeepingFixture, startKeepingFixture } from "./keeping.fixture.ts";

let fixture: KeepingFixture;
beforeAll(async () => {
  fixture = await startKeepingFixture();
});
afterAll(async () => {
  expect(fixture.errors).toEqual([]);
  await fixture.close();
});

const allReady = (count: number) => (standbys: readonly StandbyView[]) =>
  standbys.length === count && standbys.every(isAdoptable);
const drawn = (standbys: readonly StandbyView[]) =>
  standbys.map(({ annex, buckets: { lo, hi } }) => `${annex} ${lo}-${hi}`).sort();
const coveredOf = (standbys: readonly StandbyView[], origin: string) =>
  coverageOf(
    standbys
      .filter((one) => one.origin === origin && isAdoptable(one))
      .map(({ buckets }) => buckets),
  ).size;

test("two cells keep each other's standby; each is announced before it may be adopted from", async () => {
  const { addCell, keep, until, setAcks, streams, provider } = fixture;
  await addCell("cell-01");
  await addCell("cell-02");
  setAcks(false);
  const keeper = await keep();
  const waits = "has stored the partner list 1; it has 0";
  await until(
    (all) =>
      all.length === 2 &&
      all.every(({ state, reason }) => state === "announcing" && reason.includes(waits)),
  );
  setAcks(true);
  const ready = await until(allReady(2));
  expect(drawn(ready)).toEqual(["sb-cell-01-cell-02 0-255", "sb-cell-02-cell-01 0-255"]);
  expect(ready.map(({ lagBytes }) => lagBytes)).toEqual([12, 12]);
  expect(provider.log).toContain("create sb-cell-01-cell-02 cell-01 in cell-02");
  expect(streams.log).toContain("ensure sb-cell-01-cell-02");
  const events = await listEvents(fixture.database.read, 0, 100);
  expect(events.filter(({ kind }) => kind === "standby.ready")).toHaveLength(2);
  await keeper.close();
});

test("a third cell comes: the new split is ready before the old is left; a kill in between changes nothing", async () => {
  const { addCell, keep, until, standbys, streams, provider } = fixture;
  await addCell("cell-03");
  let kills = 0;
  const least = { covered: 256 };
  // Every keeper dies at its third call, half done; the next term's goes on from the rows.
  for (; kills < 6; kills += 1) {
    let calls = 0;
    let die: (value: unknown) => void = () => {};
    const dead = new Promise((resolve) => {
      die = resolve;
    });
    streams.onCall = async () => {
      calls += 1;
      if (calls === 3) die(undefined);
    };
    const keeper = await keep();
    await Promise.race([dead, until(isSettled)]);
    await keeper.close();
    least.covered = Math.min(least.covered, coveredOf(await standbys(), "cell-01"));
  }
  streams.onCall = async () => {};
  const keeper = await keep();
  const settled = await until(isSettled);
  expect(least.covered).toBe(256);
  for (const id of ["cell-01", "cell-02", "cell-03"]) expect(coveredOf(settled, id)).toBe(256);
  const kept = new Set(settled.map(({ annex }) => annex));
  await eventually(
    async () => provider.running,
    (running) => running.size === kept.size && [...running].every((one) => kept.has(one)),
  );
  await keeper.close();
});
const isSettled = (all: readonly StandbyView[]): boolean =>
  allReady(6)(all) && all.every(({ buckets }) => buckets.hi - buckets.lo === 127);

test("a stream that stopped is gone on with, a forgotten table is brought in; meanwhile nobody may adopt from them", async () => {
  const { keep, until, streams } = fixture;
  const keeper = await keep();
  const [first, second] = await until(allReady(6));
  const [stopped, narrow] = [first?.annex ?? "", second?.annex ?? ""];
  const known = streams.port;
  streams.log.length = 0;
  const status = await known.status({ annex: narrow } as never);
  // Mended in milliseconds, they would be seen broken by nobody.
  const seenBroken = Promise.withResolvers<void>();
  streams.onCall = () => seenBroken.promise;
  streams.status.set(narrow, { ...status, uncovered: ["public.notes"] });
  streams.status.set(stopped, { ...status, phase: "stopped", reason: "the slot is lost" });
  const broken = await until((all) => all.filter(({ state }) => state === "broken").length === 2);
  const reasonOf = (id: string) => broken.find(({ annex }) => annex === id)?.reason;
  expect(reasonOf(stopped)).toMatch(/the slot is lost/);
  expect(reasonOf(narrow)).toMatch(/public\.notes/);
  streams.onCall = async () => {};
  seenBroken.resolve();
  await until(allReady(6));
  expect(streams.log).toContain(`ensure ${stopped}`);
  expect(streams.log).toContain(`refresh ${narrow}`);
  await keeper.close();
});

test("a first copy that was cut off and that nothing goes on with is dropped and made anew, by itself", async () => {
  const { keep, until, streams } = fixture;
  const keeper = await keep();
  const annex = (await until(allReady(6)))[0]?.annex ?? "";
  const whole = streams.ensured;
  const reason = "the copy of orders was cut off, and no worker goes on with it";
  streams.ensured = { ...whole, phase: "stopped", reason };
  streams.status.set(annex, streams.ensured);
  streams.log.length = 0;
  await eventually(
    async () => streams.log,
    (log) => log.includes(`drop ${annex} there`),
  );
  streams.ensured = whole;
  await until(allReady(6));
  expect(streams.log.lastIndexOf(`ensure ${annex}`)).toBeGreaterThan(
    streams.log.indexOf(`drop ${annex} there`),
  );
  await keeper.close();
});

test("a cell that is cordoned and empty hosts nothing any more, and its annexes are removed", async () => {
  const { keep, until, setCell, provider, database } = fixture;
  await setCell("cell-03", { state: "cordoned" });
  const keeper = await keep();
  const left = await until((all) =>
    all.every(({ host, state }) => host !== "cell-03" && isAdoptable({ state })),
  );
  expect(coveredOf(left, "cell-01")).toBe(256);
  expect(provider.log).toContain("destroy sb-cell-01-cell-03");
  const { rows } = await database.read.execute<{ state: string }>(
    `select state from cellfleet_control.cell where id = 'sb-cell-01-cell-03'`,
  );
  expect(rows).toEqual([{ state: "retired" }]);
  await setCell("cell-03", { state: "active" });
  await keeper.close();
});

test("what a failover has taken stays until its keys have left; one that was forgotten is emptied by moves", async () => {
  const { keep, until, database, standbys, streams } = fixture;
  const keeper = await keep();
  const taken = (await until((all) => allReady(all.length)(all) && all.length >= 5)).find(
    ({ origin }) => origin === "cell-01",
  );
  const annex = taken?.annex ?? "";
  await recordTakeover(annex);
  // The others of this origin were not adopted: nobody needs them.
  await until((all) => all.filter(({ origin }) => origin === "cell-01").length === 1);
  expect((await standbys()).find((one) => one.annex === annex)).toMatchObject({
    ...{ state: "adopted", keys: 1, reason: "taken over" },
  });
  // Its failover brings them on as long as it is open; else nobody would.
  const moves = () => database.read.select().from(move).where(eq(move.source, annex));
  expect(await moves()).toEqual([]);
  await database.read.update(failover).set({ open: false });
  const [home] = await eventually(moves, (all) => all.length > 0);
  expect(home?.target).toBe("cell-02");
  await database.read.update(op).set({ state: "done", step: "done" });
  await database.read.update(placement).set({ cell: "cell-02", epoch: 3 });
  await until((all) => all.every((one) => one.annex !== annex));
  expect(streams.log).toContain(`drop ${annex} gone`);
  await keeper.close();
});

/** A failover of cell-01 that is open, come to re-protection, and has given one key to this annex. */
async function recordTakeover(annex: string): Promise<void> {
  const { setCell, database } = fixture;
  await setCell("cell-01", { state: "quarantined", revoking: true });
  await database.transaction(async (tx) => {
    const reason = "taken over";
    await insertOp(tx, {
      ...{ id: failoverId, kind: "cell.failover", object: "cell-01", step: "reprotecting" },
      ...{ state: "running", headline: "", input: {}, actor: "test", reason, revision: null },
      ...{ plan: { kind: "cell.failover", steps: [], skipped: [] }, nowMs: Date.now() },
      deadlineMs: undefined,
    });
    const row = { op: failoverId, cell: "cell-01", region: "local", mode: "unplanned" } as const;
    await tx.insert(failover).values({ ...row, startedBy: "test", plan: {} });
    await tx.insert(placement).values({
      ...{ key: "default/tenant/acme", keyspace: "default", kind: "tenant", value: "acme" },
      ...{ cell: annex, epoch: 2, state: "active", revision: 1, op: failoverId },
    });
    const reset = `update cellfleet_control.standby set state = 'ready' where annex = '${annex}'`;
    await tx.execute(reset);
    await applyChange(tx, { annex, from: "ready", to: "adopting", reason });
    await applyChange(tx, { annex, from: "adopting", to: "adopted", reason });
  });
}
const failoverId = opIdSchema.parse("op_0failover0");
