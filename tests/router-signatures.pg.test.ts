/**
 * A router, an agent and a control plane that publishes keys: what came past the router is refused. A
 * tap between router and agent sees what goes over the wire, and can send it again.
 */
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { request } from "undici";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { type AgentBench, openBench } from "../cell/agent/agent.fixture.ts";
import type { Agent } from "../cell/agent/agent.ts";
import { headers as names } from "../contract/headers.ts";
import { headerValues } from "../contract/raw-headers.ts";
import { type RouterKey, routerKeySchema } from "../contract/router-key.ts";
import { admin, ask, codeOf, createBench, until } from "../router/running.fixture.ts";
import { must } from "../runtime/assert.ts";
import {
  closeServer,
  keys,
  listenOn,
  startControlPlane,
  type TestControlPlane,
  tableOf,
} from "../table/table.fixture.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const routers = createBench();
let cells = 0;
let cell: AgentBench;
let agent: Agent;
let publisher: TestControlPlane;
/** Raw headers of what the router sent, newest last. */
const wire: string[][] = [];

/** Between router and agent. */
async function startTap(to: () => string): Promise<string> {
  const tap = createServer(async (req, res) => {
    wire.push(req.rawHeaders);
    const answer = await send(to(), req.rawHeaders);
    res.writeHead(answer.statusCode, answer.headers).end(await answer.body.text());
  });
  const port = await listenOn(tap, 0);
  routers.closers.push(() => closeServer(tap));
  return `http://127.0.0.1:${port}`;
}

const hop = new Set(["host", "connection", "content-length", "transfer-encoding", "keep-alive"]);
const send = (endpoint: string, raw: readonly string[]) =>
  request(`${endpoint}/things`, {
    headers: Array.from({ length: raw.length / 2 }, (_, nth) => raw.slice(2 * nth, 2 * nth + 2))
      .filter(([name = ""]) => !hop.has(name.toLowerCase()))
      .flat(),
  });

/** What went over the wire, with other values for some headers; undefined leaves one out. */
async function replay(change: Readonly<Record<string, string | undefined>> = {}) {
  const raw = must(wire.at(-1), "a request");
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name = "", value = ""] = [raw[at], raw[at + 1]];
    if (!Object.hasOwn(change, name)) kept.push(name, value);
  }
  for (const [name, value] of Object.entries(change)) {
    if (value !== undefined) kept.push(name, value);
  }
  const { statusCode, headers, body } = await send(agent.endpoint, kept);
  await body.dump();
  return `${statusCode} ${headers[names.error]}`;
}

/** As the real one does with what a router says. */
const announcedKeys = (): RouterKey[] =>
  (publisher.asked.findLast((one) => one.keys !== undefined)?.keys ?? []).map((key) =>
    routerKeySchema.parse({ ...key, router: "router-1" }),
  );
async function publish(): Promise<void> {
  await until(() => expect(announcedKeys()).not.toEqual([]));
  publisher.changeNames({ routerKeys: announcedKeys() });
}

async function openCell(mode: "require" | "observe"): Promise<void> {
  wire.length = 0;
  cells += 1;
  const name = `cell-${cells}`;
  cell = await openBench(server, name);
  routers.closers.push(cell.close);
  const tap = await startTap(() => agent.endpoint);
  publisher = await startControlPlane(
    tableOf(5, { acme: `${name} 1` }, { [name]: [tap] }, "fleet-1", {
      routerKeys: [],
      serviceRoutes: [
        { pathPrefix: "/any", service: "default", class: "any-cell" },
        { pathPrefix: "/all", service: "default", class: "fan-out" },
      ],
    }),
  );
  routers.closers.push(publisher.close);
  cell.control.settings.tableOrigin = publisher.url;
  const trustKeys = join(routers.dir(), "keys.json");
  await writeFile(trustKeys, JSON.stringify(keys.publicKeys));
  agent = await cell.start({
    routerSignatures: mode,
    table: { trustKeys, stateDir: join(routers.dir(), "agent") },
  });
  await cell.applied(cell.control.own("default/tenant/acme", "active"));
}

const verdicts = async (verdict: string): Promise<number> => {
  const { body } = await request(`${agent.admin}/metrics`);
  const series = `cellfleet_agent_router_signatures_total{verdict="${verdict}"} `;
  const line = (await body.text()).split("\n").find((one) => one.startsWith(series));
  return Number(line?.slice(series.length));
};

describe("where signatures are required", () => {
  beforeEach(() => openCell("require"));

  test("a router is ready when the table names its key; only then, and as sent, its requests pass", async () => {
    const { router } = await routers.startRemote(publisher.url);
    await until(async () => expect((await admin(router, "/table")).status).toBe(200));
    expect((await admin(router, "/readyz")).status).toBe(503);
    expect(codeOf(await ask(router.port, "acme"))).toBe("403 ROUTER_SIGNATURE_INVALID");
    expect(cell.app.seen).toEqual([]);
    await publish();
    await until(async () => expect((await admin(router, "/readyz")).status).toBe(200));
    const forged = { [names.signature]: "v1.forged.1.x", "X-CellFleet-Signature": "mine" };
    await until(async () => {
      expect((await ask(router.port, "acme", { headers: forged })).status).toBe(201);
    });
    const raw = must(wire.at(-1), "a request");
    expect(headerValues(raw, names.signature)).toHaveLength(1);
    expect(JSON.stringify(cell.app.seen)).not.toMatch(/signature/i);
    cell.app.seen.length = 0;
    // What was seen on its way is good for the same again, until it ends, and for nothing else.
    expect(await replay()).toBe("201 undefined");
    cell.app.seen.length = 0;
    const globex = { [names.tenant]: "globex", [names.key]: "default/tenant/globex" };
    for (const change of [
      { [names.signature]: undefined },
      globex,
      { [names.epoch]: "2" },
      { [names.service]: "admin" },
      { [names.routeClass]: "read" },
      { [names.cell]: "cell-99" },
    ]) {
      expect(await replay(change)).toBe("403 ROUTER_SIGNATURE_INVALID");
    }
    expect(cell.app.seen).toEqual([]);
  });

  test("requests that speak of no tenant are signed too, and stand for none", async () => {
    const { router } = await routers.startRemote(publisher.url);
    await publish();
    const tenant = { [names.tenant]: "acme", [names.keyspace]: "default" };
    const placed = { ...tenant, [names.key]: "default/tenant/acme", [names.epoch]: "1" };
    for (const path of ["/any", "/all"]) {
      await until(async () => {
        const answer = await ask(router.port, undefined, { path });
        expect(answer.headers["x-cell-missing"]).toBeUndefined();
        expect(answer.status).toBeLessThan(300);
      });
      cell.app.seen.length = 0;
      const others = [placed, { ...placed, [names.routeClass]: undefined }];
      for (const change of [...others, { [names.routeClass]: "public" }]) {
        expect(await replay(change)).toBe("403 ROUTER_SIGNATURE_INVALID");
      }
      expect(cell.app.seen).toEqual([]);
    }
  });

  test("a router that starts again without a control plane is believed, one that was retired is not", async () => {
    const { router } = await routers.startRemote(publisher.url);
    await publish();
    await until(async () => expect((await ask(router.port, "acme")).status).toBe(201));
    publisher.changeNames({ routerKeys: [] });
    await until(async () =>
      expect(codeOf(await ask(router.port, "acme"))).toBe("403 ROUTER_SIGNATURE_INVALID"),
    );
    publisher.changeNames({ routerKeys: announcedKeys() });
    await until(async () => expect((await ask(router.port, "acme")).status).toBe(201));
    await router.close();
    await publisher.close();
    const again = await routers.startRemote(publisher.url);
    expect((await admin(again.router, "/readyz")).status).toBe(200);
    expect((await ask(again.router.port, "acme")).status).toBe(201);
  });

  test("an old key is exchanged without a refused request", async () => {
    const first = await routers.startRemote(publisher.url);
    await publish();
    await until(async () => expect((await ask(first.router.port, "acme")).status).toBe(201));
    await first.router.close();
    const path = join(routers.dir(), "state", "router-keys.json");
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace(/"madeAtMs":\d+/, '"madeAtMs":1'));
    const { router } = await routers.startRemote(publisher.url);
    await until(async () => {
      expect((await ask(router.port, "acme")).status).toBe(201);
      // It says so with its next call, which a change of the table brings on.
      if (announcedKeys().length < 2) publisher.changeNames({ routerKeys: announcedKeys() });
      expect(announcedKeys()).toHaveLength(2);
    });
    const signed = () => headerValues(must(wire.at(-1), "a request"), names.signature)[0];
    const [fresh, old] = announcedKeys();
    expect(signed()).toContain(old?.id);
    publisher.changeNames({ routerKeys: announcedKeys() });
    await until(async () => {
      expect((await ask(router.port, "acme")).status).toBe(201);
      expect(signed()).toContain(fresh?.id);
    });
    expect(await verdicts("unknown-key")).toBe(0);
  });

  test("a cell in stage observe counts what it would refuse", async () => {
    const { router } = await routers.startRemote(publisher.url);
    await publish();
    await until(async () => expect((await ask(router.port, "acme")).status).toBe(201));
    cell.control.settings.stage = "observe";
    await until(async () => expect(await replay({ [names.signature]: undefined })).toMatch(/^201/));
    const { body } = await request(`${agent.admin}/metrics`);
    expect(await body.text()).toMatch(
      /cellfleet_cell_would_refuse_total\{reason="ROUTER_SIGNATURE_INVALID"\} [1-9]/,
    );
  });
});

test("where they are observed nothing is refused, and all is counted", async () => {
  await openCell("observe");
  const { router } = await routers.startRemote(publisher.url);
  await until(async () => expect((await ask(router.port, "acme")).status).toBe(201));
  expect(await replay({ [names.signature]: undefined })).toBe("201 undefined");
  expect(await verdicts("unknown-key")).toBeGreaterThan(0);
  expect(await verdicts("missing")).toBe(1);
});
