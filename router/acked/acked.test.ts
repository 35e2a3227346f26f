/** What is remembered of acknowledged writes: bounded, and never said to be more complete than it is. */
import { expect, test } from "vitest";
import type { AckedWrite, RouterAcks } from "../../contract/cell-protocol.ts";
import type { CellId, Epoch, TenantId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { type AckedList, AckedWrites } from "./acked-writes.ts";
import { HandIn } from "./hand-in.ts";
import { isAcknowledgement, noteWrite } from "./note-write.ts";

const [a, b] = ["a" as CellId, "b" as CellId];
const key = "default/tenant/acme" as PlacementKey;
const write = (atMs: number): AckedWrite => ({
  ...{ key, tenant: "acme", epoch: 1 as Epoch, method: "POST", path: "/orders" },
  ...{ status: 201, requestId: `r${atMs}`, atMs },
});
const timesOf = ({ entries }: AckedList) => entries.map(({ atMs }) => atMs);
const limits = { perCellMax: 3, totalMax: 5, keepMs: 1000 };

test("the oldest gives way, and what was dropped is said", () => {
  const acked = new AckedWrites(limits);
  for (const atMs of [1, 2, 3]) acked.note(a, write(atMs));
  expect(acked.list(a)).toMatchObject({ evictedMs: 0 });
  acked.note(a, write(4));
  expect([timesOf(acked.list(a)), acked.list(a).evictedMs]).toEqual([[2, 3, 4], 1]);
  expect(acked.list(b)).toEqual({ entries: [], evictedMs: 0 });
});

test("age is told by the next write, so the list of a dead cell stays", () => {
  const acked = new AckedWrites(limits);
  acked.note(a, write(1));
  acked.note(b, write(900_000));
  expect(timesOf(acked.list(a))).toEqual([1]);
  acked.note(a, write(1001));
  expect(timesOf(acked.list(a))).toEqual([1, 1001]);
  acked.note(a, write(1002));
  expect([timesOf(acked.list(a)), acked.list(a).evictedMs]).toEqual([[1001, 1002], 1]);
});

test("in all no more than the total: a busy cell gives way to a quiet one", () => {
  const acked = new AckedWrites({ ...limits, perCellMax: 100 });
  acked.note(b, write(1));
  for (let atMs = 2; atMs < 20; atMs += 1) acked.note(a, write(atMs));
  expect(acked.size).toBe(5);
  expect(timesOf(acked.list(b))).toEqual([1]);
  expect([timesOf(acked.list(a)), acked.list(a).evictedMs]).toEqual([[16, 17, 18, 19], 15]);
});

test("many more than fit leave no more memory behind than fits", () => {
  const acked = new AckedWrites({ perCellMax: 2000, totalMax: 2000, keepMs: 1e9 });
  for (let atMs = 1; atMs <= 50_000; atMs += 1) acked.note(a, write(atMs));
  expect([acked.size, acked.list(a).entries.length]).toEqual([2000, 2000]);
  expect(timesOf(acked.list(a))[0]).toBe(48_001);
});

test("what a worker leaves behind is taken over, with what it had dropped", () => {
  const acked = new AckedWrites(limits);
  acked.adopt(a, { entries: [write(5), write(6)], evictedMs: 4 });
  acked.adopt(b, { entries: [], evictedMs: 9 });
  expect(acked.list(a)).toMatchObject({ evictedMs: 4 });
  expect(acked.list(b)).toEqual({ entries: [], evictedMs: 9 });
});

test.each([
  ["POST", 201, true],
  ["PATCH", 409, true],
  ["PURGE", 200, true],
  ["POST", 500, false],
  ["GET", 200, false],
  ["HEAD", 200, false],
  ["OPTIONS", 204, false],
])("%s answered %i acknowledges: %s", (method, status, is) => {
  expect(isAcknowledgement(method, status)).toBe(is);
});

test.each([
  [["x-cellfleet-lsn", "0/1A2B"], { lsn: "0/1A2B" }],
  [[], {}],
  [["x-cellfleet-lsn", "soon"], {}],
  [["x-cellfleet-lsn", "0/1, billing=2/F"], { lsns: { default: "0/1", billing: "2/F" } }],
  [["x-cellfleet-lsn", "0/1, billing=?"], {}],
])("positions of %j are %j", (said, expected) => {
  const acked = new AckedWrites(limits);
  noteWrite(acked, {
    route: { key, cell: a, epoch: 1 as Epoch, state: "active", via: "tenant" },
    ...{ tenant: "acme" as TenantId, method: "POST", path: "/p", requestId: "r", status: 200 },
    ...{ asked: ["Idempotency-Key", "k1"], said, atMs: 7 },
  });
  const [entry] = acked.list(a).entries;
  expect(entry).toEqual({
    ...{ key, tenant: "acme", epoch: 1, method: "POST", path: "/p", status: 200, requestId: "r" },
    ...{ idempotencyKey: "k1", atMs: 7, ...expected },
  });
});

function startHandIn(lists: () => AckedList[] | Error) {
  const pages: RouterAcks[] = [];
  const troubles: unknown[] = [];
  let fails = 0;
  let told = 0;
  const handIn = new HandIn({
    ...{ router: "router-1", nowMs: () => 100 },
    listsOf: async () => {
      const now = lists();
      if (now instanceof Error) throw now;
      return now;
    },
    send: async (page) => {
      if (fails > 0) {
        fails -= 1;
        throw new Error("no answer");
      }
      pages.push(page);
    },
    onCollected: () => {
      told += 1;
    },
    onTrouble: (_failover, error) => troubles.push(error),
  });
  const ask = async () => {
    handIn.hear([{ failover: "f1", cell: a }], "i1");
    // Twice at once is once.
    handIn.hear([{ failover: "f1", cell: a }], "i1");
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  };
  return { handIn, pages, troubles, ask, failNext: (n: number) => (fails = n), told: () => told };
}

test("lists of all threads are handed in together, in order, once", async () => {
  const list = (times: number[], evictedMs = 0) => ({ entries: times.map(write), evictedMs });
  const { handIn, pages, ask, told } = startHandIn(() => [list([110, 130], 105), list([120])]);
  await ask();
  await ask();
  expect(pages).toMatchObject([
    { failover: "f1", cell: "a", instance: "i1", last: true, completeSinceMs: 106, nowMs: 100 },
  ]);
  expect(pages[0]?.entries.map(({ atMs }) => atMs)).toEqual([110, 120, 130]);
  expect([handIn.collected(), told()]).toEqual([["f1"], 1]);
});

test("what was never acknowledged is handed in too, complete since the start", async () => {
  const { pages, ask } = startHandIn(() => []);
  await ask();
  expect(pages).toMatchObject([{ entries: [], last: true, completeSinceMs: 100 }]);
});

test("many pages; one that is lost is followed by all of them again, when it is asked again", async () => {
  const entries = Array.from({ length: 12_000 }, (_, at) => write(at));
  const { handIn, pages, troubles, ask, failNext } = startHandIn(() => [{ entries, evictedMs: 0 }]);
  failNext(1);
  await ask();
  expect([handIn.collected(), troubles.length]).toEqual([[], 1]);
  await ask();
  expect(pages.map((page) => [page.entries.length, page.last])).toEqual([
    [5000, false],
    [5000, false],
    [2000, true],
  ]);
  expect(handIn.collected()).toEqual(["f1"]);
});

test("a thread that does not answer keeps the failover open; one that died moves completeness up", async () => {
  let answer: AckedList[] | Error = new Error("busy");
  const { handIn, pages, ask } = startHandIn(() => answer);
  await ask();
  expect([pages, handIn.collected()]).toEqual([[], []]);
  answer = [{ entries: [write(50)], evictedMs: 0 }];
  handIn.lost();
  await ask();
  expect(pages).toMatchObject([{ completeSinceMs: 100 }]);
});
