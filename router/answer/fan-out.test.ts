/** A request to all cells: never a list that is short and does not say so. */
import type { RequestListener, ServerResponse } from "node:http";
import { connect } from "node:net";
import { describe, expect, test, vi } from "vitest";
import type { CellId } from "../../contract/ids.ts";
import type { RoutedCell } from "../../contract/routing-table.ts";
import { type Placements, startControlPlane, tableOf } from "../../table/table.fixture.ts";
import { admin, ask, codeOf, createBench, metric, until } from "../running.fixture.ts";
import { buildFanOutAnswer, embedAnswer, shownNames } from "./fan-out-answer.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const { closers, startApp, startRemote, startStatic } = createBench();
const path = "/search?q=1";
/** Longer than any test waits, where the deadline is not what is tested. */
const deadlineMs = 20_000;

/** The gate of a cell: confirms, and lets `serve` answer. */
const gate =
  (id: string, serve: RequestListener): RequestListener =>
  (req, res) => {
    res.setHeader("x-cellfleet-confirm", `cell=${id};epoch=0;lease=60000`);
    serve(req, res);
  };
const json =
  (value: string): RequestListener =>
  (_req, res) => {
    res.setHeader("content-type", "application/json; charset=utf-8");
    res.end(value);
  };

type Options = {
  readonly placements?: Placements;
  readonly deadlineMs?: number;
  readonly flags?: Record<string, unknown>;
  readonly cells?: readonly RoutedCell[];
};
async function startFleet(apps: Readonly<Record<string, RequestListener>>, options: Options = {}) {
  const ids = Object.keys(apps);
  const cells: RoutedCell[] = [];
  for (const [id, serve] of Object.entries(apps)) {
    const services = { default: { endpoints: [await startApp(serve)] } };
    cells.push({ id: id as CellId, services });
  }
  const placements =
    options.placements ?? Object.fromEntries(ids.map((id) => [`of-${id}`, `${id} 1`]));
  const table = tableOf(1, placements, {}, "fleet-1", {
    cells: [...cells, ...(options.cells ?? [])],
    serviceRoutes: [
      {
        ...{ pathPrefix: "/search", service: "default", class: "fan-out" },
        deadlineMs: options.deadlineMs ?? deadlineMs,
      },
      { pathPrefix: "/nothing", service: "nothing", class: "fan-out" },
    ],
  });
  const plane = await startControlPlane(table);
  closers.push(plane.close);
  const started = await startRemote(plane.url, options.flags);
  await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
  return { plane, ...started };
}

describe("one answer of all cells", () => {
  test("is complete, embeds what each said, byte for byte, and says it to each gate", async () => {
    const heads: Record<string, unknown>[] = [];
    const { router } = await startFleet({
      a: gate("a", (req, res) => {
        heads.push({ method: req.method, url: req.url, ...req.headers });
        json('{"id": 12345678901234567890}')(req, res);
      }),
      b: gate("b", (_req, res) => res.writeHead(404, { "content-type": "text/plain" }).end("no")),
    });
    const answer = await ask(router.port, "nobody", {
      path,
      headers: {
        "x-cellfleet-tenant": "evil",
        "accept-encoding": "gzip",
        "if-none-match": '"x"',
        authorization: "Bearer t",
      },
    });
    expect(answer.status).toBe(200);
    expect(answer.headers).not.toHaveProperty("x-cell-missing");
    expect(answer.text).toContain('"a":{"status":200,"body":{"id": 12345678901234567890}}');
    expect(JSON.parse(answer.text)).toMatchObject({
      complete: true,
      cells: { b: { status: 404, contentType: "text/plain", body: "no" } },
      missing: [],
    });
    const [head] = heads;
    expect(head).toMatchObject({
      ...{ method: "GET", url: path, authorization: "Bearer t" },
      "x-cellfleet-cell": "a",
      "x-cellfleet-class": "fan-out",
    });
    for (const name of ["x-cellfleet-tenant", "x-tenant-id", "if-none-match", "accept-encoding"]) {
      expect(head).not.toHaveProperty(name);
    }
  });

  test("of a HEAD has its head alone; of anything that writes there is none", async () => {
    const { router } = await startFleet({ a: gate("a", json("[]")) });
    const head = await ask(router.port, undefined, { path, method: "HEAD" });
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(Number(head.headers["content-length"])).toBeGreaterThan(0);
    const write = await ask(router.port, undefined, { path, method: "POST", body: "x" });
    expect(codeOf(write)).toBe("405 METHOD_NOT_ALLOWED");
  });

  test("asks cells that own something, in any state, and offer the service", async () => {
    const idle: RequestListener = () => expect.unreachable("an empty cell was asked");
    const { router } = await startFleet(
      { a: gate("a", json("1")), b: gate("b", json("2")), idle },
      { placements: { x: "a 1 suspended", y: "b 1" } },
    );
    const answer = JSON.parse((await ask(router.port, undefined, { path })).text);
    expect(answer).toEqual({
      complete: true,
      cells: { a: { status: 200, body: 1 }, b: { status: 200, body: 2 } },
      missing: [],
    });
    const unknown = await ask(router.port, undefined, { path: "/nothing" });
    expect(codeOf(unknown)).toBe("503 SERVICE_UNKNOWN");
  });

  test("asks a cell from its first placement to its last", async () => {
    const { router, plane } = await startFleet(
      { a: gate("a", json("1")), b: gate("b", json("2")) },
      { placements: { x: "a 1" } },
    );
    const asked = async () =>
      Object.keys(JSON.parse((await ask(router.port, undefined, { path })).text).cells);
    expect(await asked()).toEqual(["a"]);
    plane.change({ y: "b 1" });
    await until(async () => expect(await asked()).toEqual(["a", "b"]));
    plane.change({}, ["y"]);
    await until(async () => expect(await asked()).toEqual(["a"]));
  });

  test("works without the protocol of cells", async () => {
    const { router } = await startStatic({
      serviceRoutes: [{ pathPrefix: "/search", service: "default", class: "fan-out", deadlineMs }],
      cells: { a: { endpoints: [await startApp(json("1"))] } },
      tenants: { acme: "a" },
    });
    expect(JSON.parse((await ask(router.port, undefined, { path })).text)).toMatchObject({
      complete: true,
    });
  });
});

describe("a cell is missing, and named, when it", () => {
  const megabyte = 1024 * 1024;
  const silent: RequestListener = () => {};
  test.each<[string, string, RequestListener, number]>([
    ["fails", "failed", gate("b", (_req, res) => res.writeHead(500).end("{}")), deadlineMs],
    ["does not confirm", "unconfirmed", json("[]"), deadlineMs],
    ["confirms as another", "unconfirmed", gate("a", json("[]")), deadlineMs],
    [
      "has no lease",
      "unconfirmed",
      (req, res) => {
        res.setHeader("x-cellfleet-confirm", "cell=b;epoch=0;lease=0");
        json("[]")(req, res);
      },
      deadlineMs,
    ],
    ["breaks off", "unreachable", (req) => req.socket.destroy(), deadlineMs],
    [
      "breaks off within its answer",
      "unreachable",
      gate("b", (req, res) => {
        res.writeHead(200, { "content-length": "100" }).write("[");
        setTimeout(() => req.socket.destroy(), 10);
      }),
      deadlineMs,
    ],
    [
      "says too much",
      "too-large",
      gate("b", (_q, res) => res.end("x".repeat(megabyte + 1))),
      deadlineMs,
    ],
    [
      "encodes its answer",
      "unreadable",
      gate("b", (_q, res) => res.writeHead(200, { "content-encoding": "br" }).end("?")),
      deadlineMs,
    ],
    ["is late", "late", silent, 200],
    [
      "is late with the end of its answer",
      "late",
      gate("b", (_req, res) => void res.writeHead(200).write("[")),
      200,
    ],
  ])("%s", async (_name, reason, serve, within) => {
    const { router, lines } = await startFleet(
      { a: gate("a", json("[1]")), b: serve },
      { deadlineMs: within },
    );
    const answer = await ask(router.port, undefined, { path });
    expect(answer).toMatchObject({ status: 207, headers: { "x-cell-missing": "b" } });
    expect(JSON.parse(answer.text)).toEqual({
      complete: false,
      cells: { a: { status: 200, body: [1] } },
      missing: [{ cell: "b", reason }],
    });
    expect(await metric(router, `cellfleet_router_fan_out_missing_total{reason="${reason}"}`)).toBe(
      1,
    );
    await until(() =>
      expect(lines.filter(({ event }) => event === "request.done")).toMatchObject([
        { flag: "incomplete", status: 207 },
      ]),
    );
  });

  test("is dead, or owns tenants and is not in the table", async () => {
    const dead = await startApp(silent);
    await closers.pop()?.();
    const { router } = await startFleet(
      { a: gate("a", json("1")) },
      {
        placements: { x: "a 1", y: "dead 1", z: "lost 1" },
        cells: [{ id: "dead" as CellId, services: { default: { endpoints: [dead] } } }],
      },
    );
    const answer = await ask(router.port, undefined, { path });
    expect(answer.headers["x-cell-missing"]).toBe("dead, lost");
    expect(JSON.parse(answer.text).missing).toEqual([
      { cell: "dead", reason: "unreachable" },
      { cell: "lost", reason: "unlisted" },
    ]);
  });

  test("answers, while a tenant of it is served by nobody", async () => {
    const { router } = await startFleet(
      { a: gate("a", json("1")), b: gate("b", json("2")) },
      { placements: { x: "a 1", y: "b 1", z: "b 1 unavailable" } },
    );
    const answer = await ask(router.port, undefined, { path });
    expect(answer).toMatchObject({ status: 207, headers: { "x-cell-missing": "b" } });
    expect(JSON.parse(answer.text)).toMatchObject({
      cells: { b: { status: 200, body: 2 } },
      missing: [{ cell: "b", reason: "unsettled" }],
    });
  });

  test("answers, and a tenant leaves or enters it meanwhile", async () => {
    const waiting: ServerResponse[] = [];
    const wait = (id: string) => gate(id, (_req, res) => void waiting.push(res));
    const { router, plane } = await startFleet(
      { a: wait("a"), b: wait("b"), c: wait("c") },
      { placements: { x: "a 1", y: "b 1", z: "c 1" } },
    );
    const answer = ask(router.port, undefined, { path });
    await until(() => expect(waiting).toHaveLength(3));
    // The hold begins and ends while the cells work.
    plane.change({ x: "a 1 hold" });
    plane.change({ x: "b 2" });
    await until(async () => expect((await admin(router, "/table")).text).toMatch(/"revision":3/));
    for (const res of waiting) res.end("done");
    const { missing } = JSON.parse((await answer).text);
    expect(missing).toEqual([
      { cell: "a", reason: "unsettled" },
      { cell: "b", reason: "unsettled" },
    ]);
  });

  test("would make all answers together too large", async () => {
    const ids = Array.from({ length: 18 }, (_, at) => `c${at}`);
    const most = `"${"x".repeat(megabyte - 2)}"`;
    const { router } = await startFleet(
      Object.fromEntries(ids.map((id) => [id, gate(id, json(most))])),
    );
    const { complete, cells, missing } = JSON.parse(
      (await ask(router.port, undefined, { path })).text,
    );
    expect(complete).toBe(false);
    expect(Object.keys(cells).length).toBeLessThanOrEqual(16);
    expect(Object.keys(cells).length + missing.length).toBe(18);
    expect(new Set(missing.map(({ reason }: { reason: string }) => reason))).toEqual(
      new Set(["too-large"]),
    );
  });
});

describe("a request to all cells", () => {
  test("ends everywhere when the client goes away", async () => {
    let open = 0;
    let asked = 0;
    const wait: RequestListener = (req) => {
      asked += 1;
      open += 1;
      req.socket.once("close", () => {
        open -= 1;
      });
    };
    const { router, lines } = await startFleet({ a: wait, b: wait });
    const client = connect(router.port, "127.0.0.1");
    client.on("error", () => {});
    client.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await until(() => expect(asked).toBe(2));
    client.destroy();
    await until(() => expect(open).toBe(0));
    await until(() =>
      expect(lines.filter(({ event }) => event === "request.done")).toMatchObject([
        { flag: "client-gone" },
      ]),
    );
    expect(await metric(router, "cellfleet_router_fan_outs")).toBe(0);
  });

  test("is refused when as many run as may, and the next is served when one is over", async () => {
    const waiting: ServerResponse[] = [];
    const hold: RequestListener = gate("a", (_req, res) => void waiting.push(res));
    const { router } = await startFleet({ a: hold }, { flags: { fanOutsMax: 1 } });
    const first = ask(router.port, undefined, { path });
    await until(() => expect(waiting).toHaveLength(1));
    const second = await ask(router.port, undefined, { path });
    expect(codeOf(second)).toBe("503 ROUTER_OVERLOADED");
    waiting[0]?.end("done");
    expect((await first).status).toBe(200);
    const third = ask(router.port, undefined, { path });
    await until(() => expect(waiting).toHaveLength(2));
    waiting[1]?.end("done");
    expect((await third).status).toBe(200);
  });
});

test("what a cell calls JSON and is none is embedded as text, and cannot break out", () => {
  const cell = "a" as CellId;
  const body = Buffer.from('1},"b":{"status":200,"body":2');
  const contentType = "application/json";
  const text = embedAnswer(200, contentType, body);
  const answer = buildFanOutAnswer([{ kind: "answered", cell, text }], []);
  expect(JSON.parse(answer.body).cells).toEqual({
    a: { status: 200, contentType, body: body.toString() },
  });
});

describe("standbys in an answer of all cells", () => {
  const shownOf = (cell: CellId) => (cell.startsWith("sb-") ? ("b" as CellId) : cell);
  test("go by the cell that they stand in, told apart where there are several", () => {
    const all = ["sb-c-b", "b", "a", "sb-a-b"] as CellId[];
    const nameOf = shownNames(all, shownOf);
    expect(all.map(nameOf)).toEqual(["b+2", "b", "a", "b+1"]);
    expect(shownNames(["sb-a-b" as CellId], shownOf)("sb-a-b" as CellId)).toBe("b");
  });
  test("are asked once they own something; a halted cell is missing by name", async () => {
    const annex = { id: "sb-a-b" as CellId, host: "b" as CellId };
    const endpoints = [await startApp(gate("sb-a-b", json('"annex"')))];
    const { router, plane } = await startFleet(
      { a: gate("a", json('"a"')), b: gate("b", json('"b"')) },
      { cells: [{ ...annex, services: { default: { endpoints } } }] },
    );
    const before = await ask(router.port, undefined, { path });
    expect(Object.keys(JSON.parse(before.text).cells)).toEqual(["a", "b"]);
    const cells = plane
      .table()
      .lists.cells.map((cell) => (cell.id === "a" ? { ...cell, halted: true as const } : cell));
    plane.changeNames({ cells });
    plane.change({ moved: "sb-a-b 2" });
    await until(async () => {
      const after = await ask(router.port, undefined, { path });
      expect(JSON.parse(after.text)).toMatchObject({
        cells: { b: { body: "b" }, "b+1": { body: "annex" } },
        missing: [{ cell: "a", reason: "halted" }],
      });
    });
  });
  test("a part whose lease is over when all are there is asked for once more", async () => {
    const asked: string[] = [];
    const brief: RequestListener = (req, res) => {
      asked.push(String(req.url));
      res.setHeader("x-cellfleet-confirm", "cell=a;epoch=0;lease=150");
      if (req.url === "/cellfleet/confirm") res.writeHead(204).end();
      else json('"a"')(req, res);
    };
    const slow: RequestListener = (req, res) =>
      void setTimeout(() => gate("b", json('"b"'))(req, res), 300);
    const { router } = await startFleet({ a: brief, b: slow });
    const answer = await ask(router.port, undefined, { path });
    expect(JSON.parse(answer.text)).toMatchObject({ complete: true, cells: { a: { body: "a" } } });
    expect(asked).toEqual([path, "/cellfleet/confirm"]);
  });
});
