/**
 * What a router does while a cell's ownership is taken away, and while it cannot hear of that: answers are
 * passed on only by a lease that certainly lives, a halted cell serves nobody and nobody serves in its place,
 * and what was acknowledged is handed in.
 */
import { once } from "node:events";
import type { RequestListener } from "node:http";
import { connect } from "node:net";
import { describe, expect, test, vi } from "vitest";
import type { CellId } from "../contract/ids.ts";
import type { RoutedCell } from "../contract/routing-table.ts";
import { type Placements, startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startCell, type TestGate } from "./fleet.fixture.ts";
import type { Router } from "./run.ts";
import {
  type Ask,
  admin,
  adminJson,
  ask,
  codeOf,
  createBench,
  metric,
  until,
} from "./running.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
/** Of the lease as the cell tells it: over before `slowMs` are. */
const shortMs = 200;
const slowMs = 300;
const slowly =
  (serve: RequestListener): RequestListener =>
  (req, res) =>
    void setTimeout(() => serve(req, res), slowMs);
const says =
  (text: string): RequestListener =>
  (_req, res) =>
    void res.end(text);

type Options = {
  readonly serve?: RequestListener;
  readonly gate?: TestGate;
  readonly placements?: Placements;
  readonly flags?: Record<string, unknown>;
  readonly lists?: Parameters<typeof tableOf>[4];
  /** What b owns by its own gate. */
  readonly owned?: Placements;
};

/** Cell a owns acme and has the gate and the application of the test; cell b owns globex. */
async function startFleet({ serve = says("answer of a"), gate, ...options }: Options = {}) {
  const placements = options.placements ?? { acme: "a 1", globex: "b 1" };
  const a = await startCell("a", () => ({ acme: "a 1" }), serve, 0, gate);
  const owned = options.owned ?? { globex: "b 1", acme: "b 2" };
  const b = await startCell("b", () => owned);
  const cells = { a: [a.url], b: [b.url] };
  const plane = await startControlPlane(tableOf(1, placements, cells, "fleet-1", options.lists));
  bench.closers.push(a.close, b.close, plane.close);
  const { router, lines } = await bench.startRemote(plane.url, options.flags);
  await until(async () => expect((await admin(router, "/readyz")).status).toBe(200));
  const post = (more: Ask = {}) => ask(router.port, "acme", { method: "POST", body: "x", ...more });
  const say = async (word: Partial<RoutedCell>) => {
    const cells = plane
      .table()
      .lists.cells.map(
        ({ halted: _halted, handover: _handover, ...cell }): RoutedCell =>
          cell.id === "a" ? { ...cell, ...word } : cell,
      );
    plane.changeNames({ cells });
    const { revision } = plane.table();
    await until(() => expect(metric(router, revisionSeries)).resolves.toBe(revision));
  };
  const halt = () => say({ halted: true });
  /** Its keys are given to others at this moment. */
  const handOver = () => say({ halted: true, handover: true });
  return { a, b, plane, router, lines, post, halt, handOver };
}

const revisionSeries = "cellfleet_router_table_revision";
const verdicts = (router: Router, verdict: string) =>
  metric(router, `cellfleet_router_confirmations_total{verdict="${verdict}"}`);

describe("an answer that took longer than the lease that it carries", () => {
  const short: TestGate = { leaseMs: () => shortMs };

  test("is passed on when the gate stands by it once more; one in time costs no question", async () => {
    let wait = true;
    const serve: RequestListener = (req, res) =>
      (wait ? slowly(says("made")) : says("made"))(req, res);
    const { a, post, router } = await startFleet({ serve, gate: short });
    expect(await post()).toMatchObject({ status: 200, text: "made" });
    expect(a.askedAgain).toEqual(["acme"]);
    expect([await verdicts(router, "lease-spent"), await verdicts(router, "confirmed")]).toEqual([
      1, 1,
    ]);
    wait = false;
    await until(async () => {
      const before = a.askedAgain.length;
      expect((await post()).status).toBe(200);
      expect(a.askedAgain).toHaveLength(before);
    });
  });

  test.each([
    ["says nothing", { ...short, again: new Promise<void>(() => {}) }, "not-again"],
    ["has a lease no more", { leaseMs: leases(shortMs, 0) }, "lease-over"],
    ["has next to no lease", { leaseMs: leases(shortMs, 20) }, "lease-spent"],
  ])("is not passed on when the gate %s", async (_what, gate, verdict) => {
    const { post, router } = await startFleet({ serve: slowly(says("secret")), gate });
    const answer = await post();
    expect(codeOf(answer)).toBe("503 OUTCOME_UNKNOWN");
    expect(answer.headers["retry-after"]).toBeDefined();
    expect(answer.text).not.toMatch(/secret/);
    expect(await verdicts(router, verdict)).toBe(1 + Number(verdict === "lease-spent"));
  });

  test("from a zombie reaches nobody, although the router hears of no takeover", async () => {
    // The control plane is gone for this router; the cell's lease was its last.
    let leaseMs = shortMs;
    const { a, plane, post, router } = await startFleet({
      serve: slowly(says("secret")),
      gate: { leaseMs: () => leaseMs },
    });
    await plane.close();
    const posted = post();
    await until(() => expect(a.seen).toHaveLength(1));
    leaseMs = 0;
    expect(codeOf(await posted)).toBe("503 OUTCOME_UNKNOWN");
    // The table on which it stands says the same as before.
    expect(await metric(router, revisionSeries)).toBe(1);
  });

  test("is judged by the table of the moment at which the gate has spoken", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { a, plane, post } = await startFleet({
      serve: slowly(says("secret")),
      gate: { ...short, again: promise },
    });
    const posted = post();
    await until(() => expect(a.askedAgain).toHaveLength(1));
    plane.change({ acme: "b 2" });
    await until(() => expect(plane.asked.at(-1)?.revision).toBe(2));
    resolve();
    expect(codeOf(await posted)).toBe("503 OUTCOME_UNKNOWN");
  });

  test("is asked for once more also as an event stream, and as an upgrade", async () => {
    const { a, router } = await startFleet({
      serve: slowly((_req, res) => {
        res.writeHead(200, { "content-type": "text/event-stream" });
        res.end("data: 1\n\n");
      }),
      gate: short,
    });
    const stream = await ask(router.port, "acme", { path: "/events" });
    expect(stream).toMatchObject({ status: 200, text: "data: 1\n\n" });
    expect(a.askedAgain).toHaveLength(1);
    // A GET that a cell answers with no 101 goes through the same place as one that it does.
    const { socket, text } = await upgrade(router.port);
    await until(() => expect(text()).toMatch(/^HTTP\/1.1 200 OK\r\n[\s\S]*data: 1/));
    expect(a.askedAgain).toHaveLength(2);
    socket.destroy();
  });

  test("of an upgrade is refused whole when the gate does not stand by it", async () => {
    const { router } = await startFleet({
      serve: slowly(says("secret")),
      gate: { leaseMs: leases(shortMs, 0) },
    });
    const { text } = await upgrade(router.port);
    await until(() => expect(text()).toMatch(/^HTTP\/1.1 503 [\s\S]*OUTCOME_UNKNOWN/));
    expect(text()).not.toMatch(/secret|200 OK/);
  });
});

/** One after the other, and the last for ever. */
function leases(...all: readonly number[]): () => number {
  let at = 0;
  return () => all[Math.min(at++, all.length - 1)] ?? 0;
}

async function upgrade(port: number) {
  const socket = connect(port);
  await once(socket, "connect");
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("error", () => {});
  socket.write(
    "GET /ws HTTP/1.1\r\nHost: h\r\nX-Tenant-Id: acme\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
  return { socket, text: () => text };
}

describe("a halted cell", () => {
  test("serves nobody, and no other cell does in its place; others are not touched", async () => {
    const { a, b, post, halt, router } = await startFleet();
    await halt();
    const answer = await post();
    expect(codeOf(answer)).toBe("503 PLACEMENT_UNAVAILABLE");
    expect(answer.headers["retry-after"]).toBe("1");
    expect((await ask(router.port, "globex")).status).toBe(200);
    expect([a.seen, b.seen]).toEqual([[], ["GET /orders globex 1 "]]);
  });

  test("has what was under way refused as unknown, and what waits for it told so at once", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { a, plane, post, halt, router } = await startFleet({
      serve: (_req, res) => void promise.then(() => res.end("secret")),
      flags: { holdMs: 25_000 },
    });
    const underWay = post();
    await until(() => expect(a.seen).toHaveLength(1));
    plane.change({ acme: "a 1 hold" });
    await until(() => expect(metric(router, revisionSeries)).resolves.toBe(2));
    const held = post();
    const heldNow = () => metric(router, 'cellfleet_router_held_requests{cell="a"}');
    await until(async () => expect(await heldNow()).toBe(1));
    await halt();
    expect(codeOf(await held)).toBe("503 PLACEMENT_UNAVAILABLE");
    resolve();
    const answer = await underWay;
    expect(codeOf(answer)).toBe("503 OUTCOME_UNKNOWN");
    expect(answer.text).not.toMatch(/secret/);
    expect(await verdicts(router, "cell-halted")).toBe(1);
  });

  test("is served from its new owner as soon as the table says so, under the name of the host", async () => {
    const { plane, post, halt, router, b } = await startFleet();
    await halt();
    const annex = await startCell("sb-a-b", () => ({ acme: "sb-a-b 2" }));
    bench.closers.push(annex.close);
    const services = { default: { endpoints: [annex.url] } };
    const standby = { id: "sb-a-b" as CellId, host: "b" as CellId, services };
    plane.changeNames({ cells: [...plane.table().lists.cells, standby] });
    plane.change({ acme: "sb-a-b 2" });
    await until(async () => expect((await post()).status).toBe(200));
    const answer = await post();
    expect(answer).toMatchObject({ text: "answer of sb-a-b\n", headers: { "x-cell": "b" } });
    expect(b.seen).toEqual([]);
    const explained = await adminJson(router, "/explain?tenant=acme");
    expect(explained).toMatchObject({ cell: "b", decision: "proxy" });
    const series = 'cellfleet_router_requests_total{cell="b",method="POST",code_class="2xx"}';
    expect(await metric(router, series)).toBeGreaterThan(1);
  });
});

describe("a cell whose keys are given to their next owners", () => {
  const heldNow = (router: Router) => metric(router, 'cellfleet_router_held_requests{cell="a"}');

  test("has who asks for them wait until then", async () => {
    const { a, plane, post, halt, handOver, router } = await startFleet({
      flags: { holdMs: 25_000, handoverMs: 25_000 },
    });
    await halt();
    expect(codeOf(await post())).toBe("503 PLACEMENT_UNAVAILABLE");
    await handOver();
    const waiting = post();
    await until(async () => expect(await heldNow(router)).toBe(1));
    plane.change({ acme: "b 2" });
    expect(await waiting).toMatchObject({ status: 200, headers: { "x-cell": "b" } });
    expect(a.seen).toEqual([]);
  });

  test("is not waited for once the takeover stands still: whoever waits is told so at once", async () => {
    const { post, halt, handOver, router } = await startFleet({
      flags: { holdMs: 25_000, handoverMs: 25_000 },
    });
    await handOver();
    const waiting = post();
    await until(async () => expect(await heldNow(router)).toBe(1));
    await halt();
    expect(codeOf(await waiting)).toBe("503 PLACEMENT_UNAVAILABLE");
  });

  test("is waited for so long and no longer, whatever else is new meanwhile", async () => {
    const { plane, post, handOver, router } = await startFleet({
      flags: { holdMs: 25_000, handoverMs: 300 },
    });
    // Whoever waits for a move's switch that the takeover comes into waits no longer than that, either.
    plane.change({ acme: "a 1 hold" });
    await until(() => expect(metric(router, revisionSeries)).resolves.toBe(2));
    const waiting = post();
    await until(async () => expect(await heldNow(router)).toBe(1));
    await handOver();
    expect(codeOf(await waiting)).toBe("503 PLACEMENT_UNAVAILABLE");
    const held = () => metric(router, "cellfleet_router_hold_seconds_count");
    const before = await held();
    plane.change({ globex: "b 2" });
    await handOver();
    expect(codeOf(await post())).toBe("503 PLACEMENT_UNAVAILABLE");
    expect(await held()).toBe(before);
  });

  test("is waited for by no request that its route's fallback answers", async () => {
    const body = "closed for a moment";
    const fallback = { static: { status: 200, contentType: "text/plain", body } };
    const { handOver, router } = await startFleet({
      flags: { holdMs: 25_000, handoverMs: 2000 },
      lists: { serviceRoutes: [{ pathPrefix: "/", service: "default", fallback }] },
    });
    await handOver();
    expect((await ask(router.port, "acme")).text).toBe(body);
    expect((await metric(router, "cellfleet_router_hold_seconds_count")) ?? 0).toBe(0);
  });

  test("leaves half of the room to those who wait for moves", async () => {
    const { plane, handOver, router } = await startFleet({
      placements: { acme: "a 1", globex: "b 1" },
      flags: { holdMs: 25_000, handoverMs: 25_000, heldMax: 4, heldPerKeyMax: 4 },
    });
    await handOver();
    const waiting = [ask(router.port, "acme"), ask(router.port, "acme")];
    await until(async () => expect(await heldNow(router)).toBe(2));
    expect(codeOf(await ask(router.port, "acme"))).toBe("503 PLACEMENT_HELD");
    plane.change({ globex: "b 1 hold" });
    await until(() => expect(metric(router, revisionSeries)).resolves.toBe(plane.table().revision));
    const moving = ask(router.port, "globex");
    await until(() =>
      expect(metric(router, 'cellfleet_router_held_requests{cell="b"}')).resolves.toBe(1),
    );
    plane.change({ acme: "b 2", globex: "b 1" });
    const answers = await Promise.all([...waiting, moving]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  test("has many tenants wait, and its heir is not met by more of them at once than it has room for", async () => {
    const tenants = Array.from({ length: 700 }, (_, at) => `t${at}`);
    const all = (word: string) => Object.fromEntries(tenants.map((tenant) => [tenant, word]));
    const { plane, handOver, router } = await startFleet({
      ...{ placements: all("a 1"), owned: all("b 2") },
      flags: { holdMs: 25_000, handoverMs: 25_000, connectionsMax: 64, pendingMax: 128 },
    });
    await handOver();
    const asked = tenants.map((tenant) => ask(router.port, tenant, { method: "POST", body: "x" }));
    await until(async () => expect(await heldNow(router)).toBe(tenants.length));
    plane.change(all("b 2"));
    const answers = await Promise.all(asked);
    expect(answers.filter(({ status }) => status !== 200).map(codeOf)).toEqual([]);
  });
});

describe("an upgrade to a cell", () => {
  test("that is halted then is closed", async () => {
    const { router, halt } = await startFleet({
      serve: (_req, res) => {
        const { socket } = res;
        const confirm = String(res.getHeader("x-cellfleet-confirm"));
        socket?.write(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-cellfleet-confirm: ${confirm}\r\n\r\n`,
        );
      },
    });
    const { socket, text } = await upgrade(router.port);
    await until(() => expect(text()).toMatch(/^HTTP\/1.1 101 /));
    const closed = once(socket, "close");
    await halt();
    await closed;
    expect(await metric(router, 'cellfleet_router_ws_closed_total{reason="halted"}')).toBe(1);
  });
});

describe("what was acknowledged", () => {
  test.each([[1], [2]])("is handed in when it is asked for, by %i threads", async (workers) => {
    const { plane, post, halt, router } = await startFleet({
      gate: { leaseMs: () => 60_000, more: () => ({ "x-cellfleet-lsn": "0/1A2B" }) },
      flags: { workers },
    });
    const keys = ["k1", "k2", "k3", "k4", "k5", "k6"];
    for (const key of keys) {
      const answer = await post({ path: "/orders?secret=1", headers: { "idempotency-key": key } });
      expect(answer.status).toBe(200);
      expect(answer.headers["x-cellfleet-lsn"]).toBeUndefined();
    }
    await ask(router.port, "acme");
    await ask(router.port, "globex", { method: "POST", body: "" });
    await halt();
    plane.collect("op_1", "a");
    await until(() => expect(plane.asked.at(-1)?.collected).toEqual(["op_1"]));
    expect(plane.acks).toHaveLength(1);
    const [page] = plane.acks;
    expect(page).toMatchObject({ failover: "op_1", cell: "a", router: "router-1", last: true });
    expect(page?.entries.map(({ idempotencyKey }) => idempotencyKey).sort()).toEqual(keys);
    expect(page?.entries[0]).toMatchObject({
      ...{ key: "default/tenant/acme", tenant: "acme", epoch: 1, method: "POST" },
      ...{ path: "/orders", status: 200, lsn: "0/1A2B" },
    });
    expect(page?.completeSinceMs).toBeLessThanOrEqual(page?.entries[0]?.atMs ?? 0);
  });

  test("was noted when the client has its first byte, long before it has the last", async () => {
    const { plane, halt, router } = await startFleet({
      // The head comes, and the body never ends.
      serve: (_req, res) => void res.writeHead(200).write("first"),
    });
    const socket = connect(router.port);
    bench.closers.push(async () => socket.destroy());
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.write("POST /p HTTP/1.1\r\nHost: h\r\nX-Tenant-Id: acme\r\nContent-Length: 0\r\n\r\n");
    await until(() => expect(text).toMatch(/^HTTP\/1.1 200 [\s\S]*first/));
    await halt();
    plane.collect("op_2", "a");
    await until(() => expect(plane.asked.at(-1)?.collected).toEqual(["op_2"]));
    expect(plane.acks[0]?.entries).toHaveLength(1);
  });
});

describe("a cell that served and begins to fail", () => {
  test("is told at once by any of the threads, and so is its return", async () => {
    let dead = false;
    const { plane, post } = await startFleet({
      serve: (_req, res) => (dead ? void res.socket?.destroy() : void res.end("ok")),
      flags: { workers: 2 },
    });
    for (let sent = 0; sent < 6; sent += 1) await post();
    dead = true;
    const share = () => {
      const seen = plane.asked.flatMap((one) => one.seen).filter(({ cell }) => cell === "a");
      return seen.at(-1);
    };
    // Nothing of the table changes, and the call that waits would wait for eight seconds.
    await until(async () => {
      await post();
      const { requests = 0, failures = 0 } = share() ?? {};
      expect(failures).toBeGreaterThan(0);
      expect(failures).toBe(requests);
    });
    dead = false;
    await until(async () => {
      await post();
      expect(share()).toMatchObject({ failures: 0 });
    });
  });
});
