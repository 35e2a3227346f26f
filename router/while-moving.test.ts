/**
 * What a request lives through when its placement changes hands in an unkind way: the table comes late, in
 * lumps, too often, or says what it said before. Between real sockets; cells with a gate.
 */
import { request as httpRequest } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, test, vi } from "vitest";
import { deltaOf, type Placements, startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startCell } from "./fleet.fixture.ts";
import type { Router } from "./run.ts";
import { type Ask, admin, ask, codeOf, createBench, metric, of, until } from "./running.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();

async function startFleet(flags: Record<string, unknown> = {}) {
  const owned: { a: Placements; b: Placements } = { a: { acme: "a 1" }, b: {} };
  const a = await startCell("a", () => owned.a);
  const b = await startCell("b", () => owned.b);
  const plane = await startControlPlane(
    tableOf(1, { acme: "a 1", globex: "b 1" }, { a: [a.url], b: [b.url] }),
  );
  bench.closers.push(a.close, b.close, plane.close);
  // Longer than a busy machine needs for anything here, where nothing else is said.
  const started = await bench.startRemote(plane.url, { holdMs: 25_000, staleMs: 25_000, ...flags });
  const { router } = started;
  await until(async () => expect((await admin(router, "/readyz")).status).toBe(200));
  const { port } = router;
  const post = (body: string, more: Ask = {}) =>
    ask(port, "acme", { method: "POST", body, ...more });
  const serves = (revision: number) =>
    until(() => expect(revisionOf(router)).resolves.toBe(revision));
  return { owned, a, b, plane, post, serves, ...started };
}

const revisionOf = (router: Router) => metric(router, "cellfleet_router_table_revision");
const fenced = (router: Router, cell: string) =>
  metric(router, `cellfleet_router_fenced_total{cell="${cell}"}`);
const heldBy = (router: Router, cell: string) =>
  metric(router, `cellfleet_router_held_requests{cell="${cell}"}`);

test("refused before the router knows of the switch, a request waits through it: longer than for news", async () => {
  const { router, plane, owned, post, serves, a, b } = await startFleet({ staleMs: 300 });
  owned.a = {};
  const posted = post("order");
  await until(async () => expect(await fenced(router, "a")).toBe(1));
  plane.change({ acme: "a 1 hold" });
  await serves(2);
  const startedMs = Date.now();
  await until(() => expect(Date.now() - startedMs).toBeGreaterThan(400));
  expect(await heldBy(router, "a")).toBe(1);
  owned.b = { acme: "b 2" };
  plane.change({ acme: "b 2" });
  expect(await posted).toMatchObject({ status: 200, text: "answer of b\n" });
  expect([a.seen, b.seen]).toEqual([[], ["POST /orders acme 2 order"]]);
});

test.each([
  ["seen as a hold", true],
  ["of which only the end came", false],
])(
  "a switch that is taken back, %s, lets the refused request go to the same owner again",
  async (_how, seen) => {
    const { router, plane, owned, post, serves, a } = await startFleet();
    owned.a = {};
    const posted = post("order");
    await until(async () => expect(await fenced(router, "a")).toBe(1));
    if (seen) {
      plane.change({ acme: "a 1 hold" });
      await serves(2);
    }
    owned.a = { acme: "a 1" };
    plane.change({ acme: "a 1" });
    expect(await posted).toMatchObject({ status: 200, text: "answer of a\n" });
    expect(a.seen).toEqual(["POST /orders acme 1 order"]);
  },
);

test("news of others is no news: the request is not sent again for it", async () => {
  const { router, plane, owned, post, serves } = await startFleet({ staleMs: 600 });
  owned.a = {};
  const posted = post("order");
  await until(async () => expect(await fenced(router, "a")).toBe(1));
  for (const revision of [2, 3, 4]) {
    plane.change({ globex: `b ${revision}` });
    await serves(revision);
  }
  expect(codeOf(await posted)).toBe("503 PLACEMENT_UNAVAILABLE");
  expect(await fenced(router, "a")).toBe(1);
});

test("a router that lags two moves behind finds the owner: each refusal is proved, each try has news", async () => {
  const { router, plane, owned, post, a, b, lines } = await startFleet();
  owned.a = { acme: "a 3" };
  const posted = Promise.all([post("one"), post("two")]);
  await until(async () => expect(await fenced(router, "a")).toBe(2));
  plane.change({ acme: "b 2" });
  await until(async () => expect(await fenced(router, "b")).toBe(2));
  plane.change({ acme: "a 3" });
  expect((await posted).map(({ status, text }) => `${status} ${text}`)).toEqual([
    "200 answer of a\n",
    "200 answer of a\n",
  ]);
  expect(a.seen).toHaveLength(2);
  expect(new Set(a.seen)).toEqual(new Set(["POST /orders acme 3 one", "POST /orders acme 3 two"]));
  expect(b.seen).toEqual([]);
  await until(() =>
    expect(of(lines, "request.done")).toMatchObject([{ attempt: 3 }, { attempt: 3 }]),
  );
});

test("a body too large to be kept is not sent again: a typed 503, and nobody saw half of it", async () => {
  const { router, plane, owned, post, serves, b } = await startFleet();
  owned.a = {};
  const posted = post("x".repeat(400_000));
  const answered = posted.then(codeOf);
  await until(async () => expect(await fenced(router, "a")).toBe(1));
  owned.b = { acme: "b 2" };
  plane.change({ acme: "b 2" });
  await serves(2);
  expect(await answered).toBe("503 PLACEMENT_UNAVAILABLE");
  expect(b.seen).toEqual([]);
});

test("bytes of waiting requests are bounded, and what leaves gives its place back", async () => {
  const { router, plane, owned, post, serves, a, b } = await startFleet({
    heldPerKeyMax: 2,
    heldBytesPerKeyMax: 40_000,
    heldBytesMax: 80_000,
  });
  plane.change({ acme: "a 1 hold" });
  await serves(2);
  const large = post("x".repeat(39_000));
  await until(async () => expect(await heldBy(router, "a")).toBe(1));
  expect(await metric(router, "cellfleet_router_held_bytes")).toBeGreaterThan(39_000);
  expect(codeOf(await post("x".repeat(2000)))).toBe("503 PLACEMENT_HELD");
  const leaving = httpRequest({
    ...{ port: router.port, path: "/orders", agent: false },
    headers: { "x-tenant-id": "acme" },
  });
  leaving.on("error", () => {});
  leaving.end();
  await until(async () => expect(await heldBy(router, "a")).toBe(2));
  expect(codeOf(await post("small"))).toBe("503 PLACEMENT_HELD");
  leaving.destroy();
  await until(async () => expect(await heldBy(router, "a")).toBe(1));
  const small = post("small");
  await until(async () => expect(await heldBy(router, "a")).toBe(2));
  owned.b = { acme: "b 2" };
  plane.change({ acme: "b 2" });
  expect([(await large).status, (await small).status]).toEqual([200, 200]);
  expect([a.seen.length, b.seen.length]).toEqual([0, 2]);
  const count = (result: string) =>
    metric(router, `cellfleet_router_holds_total{result="${result}"}`);
  const results = ["released", "key-bytes-full", "key-full", "client-gone", "timeout"];
  expect(await Promise.all(results.map(count))).toEqual([2, 1, 1, 1, 0]);
  expect(await metric(router, "cellfleet_router_held_bytes")).toBe(0);
});

test("holds and releases faster than the queue empties stall nobody, and each request is served once", async () => {
  const { router, plane, owned, post, serves, b } = await startFleet({ clientsPerIpMax: 1000 });
  owned.b = { acme: "b 2" };
  plane.change({ acme: "b 2 hold" });
  await serves(2);
  const posted = Array.from({ length: 300 }, (_one, nth) => post(`order ${nth}`));
  await until(async () => expect(await heldBy(router, "b")).toBe(300));
  for (let round = 0; round < 20; round += 1) {
    plane.change({ acme: "b 2" });
    plane.change({ acme: "b 2 hold" });
    // So that the router sees some of them one by one, and some in lumps.
    if (round % 3 === 0)
      await until(async () => expect(await revisionOf(router)).toBe(plane.table().revision));
  }
  plane.change({ acme: "b 2" });
  const answers = await Promise.all(posted);
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  expect(new Set(b.seen).size).toBe(300);
  expect(b.seen).toHaveLength(300);
  expect(await heldBy(router, "b")).toBe(0);
});

/** In front of the control plane: what it had under way when it freezes never ends, what comes later does. */
async function startFreezer(to: string) {
  const sockets = new Set<Socket>();
  let frozen = new Set<Socket>();
  const server = createServer((client) => {
    const out = connect(Number(new URL(to).port), "127.0.0.1");
    for (const [one, other] of [
      [client, out],
      [out, client],
    ] as const) {
      sockets.add(one);
      one.on("error", () => one.destroy());
      one.on("close", () => other.destroy());
      one.on("data", (chunk) => {
        if (!frozen.has(one)) other.write(chunk);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  bench.closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    freeze: () => {
      frozen = new Set(sockets);
    },
  };
}

test.each([1, 2])(
  "a refusal makes a router of %i threads ask anew, when the call that waits for news is dead",
  async (workers) => {
    const owned: { a: Placements; b: Placements } = { a: { acme: "a 1" }, b: {} };
    const a = await startCell("a", () => owned.a);
    const b = await startCell("b", () => owned.b);
    const plane = await startControlPlane(tableOf(1, { acme: "a 1" }, { a: [a.url], b: [b.url] }));
    bench.closers.push(a.close, b.close, plane.close);
    const freezer = await startFreezer(plane.url);
    // Less than the call would take to be given up.
    const { router } = await bench.startRemote(freezer.url, { workers, staleMs: 10_000 });
    await until(async () => expect((await ask(router.port, "acme")).status).toBe(200));
    // The second call waits at the control plane.
    await until(() => expect(plane.asked.at(-1)?.waitMs).toBeGreaterThan(0));
    freezer.freeze();
    Object.assign(owned, { a: {}, b: { acme: "b 2" } });
    plane.change({ acme: "b 2" });
    expect(await ask(router.port, "acme", { method: "POST", body: "order" })).toMatchObject({
      status: 200,
      text: "answer of b\n",
    });
    expect(await metric(router, 'cellfleet_router_syncs_total{result="failed"}')).toBe(0);
  },
);

test("a hold that comes late, or again, does not follow its release", async () => {
  const { router, plane, owned, serves, lines } = await startFleet();
  owned.a = { acme: "a 1" };
  const late = deltaOf(plane.table(), { acme: "a 1 hold" });
  plane.change({ acme: "a 1 hold" });
  await serves(2);
  plane.change({ acme: "a 1" });
  await serves(3);
  plane.cheatNext(late);
  await until(() => expect(of(lines, "table.refused")).toMatchObject([{ reason: "gap" }]));
  expect((await ask(router.port, "acme")).text).toBe("answer of a\n");
  expect(await revisionOf(router)).toBe(3);
});
