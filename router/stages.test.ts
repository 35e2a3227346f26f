/** Before stage enforce: one cell takes what the table places nowhere, and it is counted, not refused. */
import type { RequestListener } from "node:http";
import { describe, expect, test, vi } from "vitest";
import type { CellId } from "../contract/ids.ts";
import type { CellStage } from "../contract/routing-table.ts";
import { rawExchange } from "../runtime/http/peers.fixture.ts";
import { type Placements, startControlPlane, tableOf } from "../table/table.fixture.ts";
import { startCell } from "./fleet.fixture.ts";
import { admin, adminJson, ask, codeOf, createBench, metric, until } from "./running.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const { closers, startApp, startRemote } = createBench();

/** Says what it was asked. */
const echo: RequestListener = (req, res) => {
  res.setHeader("x-cellfleet-confirm", "cell=old;epoch=1;lease=60000");
  res.end(JSON.stringify({ url: req.url, headers: req.headers }));
};

/** Cell `old` in `stage` behind `serve`, and cell `b` with a gate, which owns globex. */
async function startFleet(stage: CellStage, serve: RequestListener = echo) {
  const old = await startApp(serve);
  const b = await startCell("b", () => ({ globex: "b 1" }));
  const placements: Placements = { acme: "old 1", globex: "b 1", asleep: "old 1 suspended" };
  const cells = [
    { id: "old" as CellId, stage, services: { default: { endpoints: [old] } } },
    { id: "b" as CellId, services: { default: { endpoints: [b.url] } } },
  ];
  const plane = await startControlPlane(tableOf(1, placements, {}, "fleet-1", { cells }));
  closers.push(b.close, plane.close);
  const started = await startRemote(plane.url);
  await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
  return { plane, b, cells, ...started };
}

const strange = [
  ["without a tenant", undefined, {}, "TENANT_MISSING"],
  ["with an id that is none", "Acme Inc!", {}, "TENANT_INVALID"],
  ["of an unknown tenant", "nobody", {}, "TENANT_UNKNOWN"],
] as const;

test("how requests ended is told by cell and service, since the router began", async () => {
  const { router, plane } = await startFleet("enforce", (_req, res) => {
    res.statusCode = 500;
    res.end();
  });
  const told = () => plane.asked.findLast(({ served }) => served !== undefined)?.served;
  expect((await ask(router.port, "globex")).status).toBe(200);
  expect((await ask(router.port, "acme")).status).toBeGreaterThanOrEqual(500);
  expect((await ask(router.port, "nobody")).status).toBe(404);
  plane.change({ other: "b 1" });
  const service = "default";
  await until(() =>
    expect(told()?.toSorted((one, other) => one.cell.localeCompare(other.cell))).toEqual([
      { cell: "b", service, requests: 1, failures: 0 },
      { cell: "old", service, requests: 1, failures: 1 },
    ]),
  );
});

describe("in pass-through", () => {
  test.each(strange)("a request %s goes to the one cell, and is counted", async (...row) => {
    const [, tenant, headers, code] = row;
    const { router, plane } = await startFleet("pass-through");
    const answer = await ask(router.port, tenant, { path: "/login?a=1", headers });
    expect(answer).toMatchObject({ status: 200, headers: { "x-cell": "old" } });
    expect(answer.headers).not.toHaveProperty("x-cell-epoch");
    const seen = JSON.parse(answer.text);
    expect(seen).toMatchObject({ url: "/login?a=1" });
    // The application reads on what it reads today.
    expect(seen.headers["x-tenant-id"]).toBe(tenant);
    expect(seen.headers).not.toHaveProperty("x-cellfleet-nonce");
    expect(await metric(router, `cellfleet_router_would_refuse_total{code="${code}"}`)).toBe(1);
    plane.change({ other: "b 1" });
    await until(() => expect(plane.asked.at(-1)?.wouldRefuse).toEqual({ [code]: 1 }));
  });

  test("a known tenant is told, no gate is spoken to, nothing need be confirmed", async () => {
    const { router } = await startFleet("pass-through", (req, res) =>
      res.end(JSON.stringify(req.headers)),
    );
    const forged = {
      "x-cellfleet-tenant": "evil",
      "x-cellfleet-epoch": "9",
      x_cellfleet_cell: "b",
    };
    const answer = await ask(router.port, "acme", { headers: forged });
    expect(answer).toMatchObject({
      status: 200,
      headers: { "x-cell": "old", "x-cell-epoch": "1" },
    });
    const seen = JSON.parse(answer.text);
    expect(seen).toMatchObject({ "x-cellfleet-tenant": "acme", "x-tenant-id": "acme" });
    const internal = Object.keys(seen).filter((name) => /^x[-_]cellfleet[-_]/.test(name));
    expect(new Set(internal)).toEqual(new Set(["x-cellfleet-tenant", "x-cellfleet-keyspace"]));
    expect(await metric(router, 'cellfleet_router_would_refuse_total{code="TENANT_UNKNOWN"}')).toBe(
      0,
    );
  });

  test("a tenant of another cell goes to its own cell, through its gate", async () => {
    const { router, b } = await startFleet("pass-through");
    expect((await ask(router.port, "globex")).text).toBe("answer of b\n");
    expect(b.seen).toEqual(["GET /orders globex 1 "]);
  });

  test("what breaks HTTP or loops is refused as ever, and so is a suspended tenant", async () => {
    const { router } = await startFleet("pass-through");
    const raw = async (lines: string) =>
      (await rawExchange(router.port, `GET / HTTP/1.1\r\n${lines}Connection: close\r\n\r\n`)).text;
    expect(await raw("")).toMatch(/400 [\s\S]*REQUEST_INVALID/);
    expect(await raw("Host: a\r\nHost: b\r\n")).toMatch(/400 [\s\S]*REQUEST_INVALID/);
    const via = "1.1 cellfleet-router-1, ".repeat(3);
    expect(await raw(`Host: a\r\nVia: ${via}1.1 x\r\n`)).toMatch(/508 [\s\S]*LOOP_DETECTED/);
    expect(codeOf(await ask(router.port, "asleep"))).toBe("403 TENANT_SUSPENDED");
  });

  test("a contradiction is carried as it was sent, unless it may mean another cell's tenant", async () => {
    const { router, b } = await startFleet("pass-through");
    const elsewhere = await rawExchange(
      router.port,
      "GET / HTTP/1.1\r\nHost: a\r\nx-tenant-id: acme\r\nx-tenant-id: globex\r\nConnection: close\r\n\r\n",
    );
    expect(elsewhere.text).toMatch(/400 [\s\S]*TENANT_CONFLICT/);
    expect(b.seen).toEqual([]);
    const { text } = await rawExchange(
      router.port,
      "GET / HTTP/1.1\r\nHost: a\r\nx-tenant-id: acme\r\nx-tenant-id: nobody\r\nConnection: close\r\n\r\n",
    );
    expect(text).toMatch(/200 OK[\s\S]*"x-tenant-id":"acme, nobody"/);
    const series = 'cellfleet_router_would_refuse_total{code="TENANT_CONFLICT"}';
    expect(await metric(router, series)).toBe(1);
  });

  test("a tunnel without a tenant is carried too", async () => {
    const { router } = await startFleet("pass-through", (req, res) => {
      res.end(JSON.stringify(req.headers));
    });
    const { text } = await rawExchange(
      router.port,
      "GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    expect(text).toMatch(/200 [\s\S]*"upgrade":"websocket"/);
  });
});

describe("in observe", () => {
  test("a known tenant's request speaks with the gate; an unknown one says cell and nonce", async () => {
    const { router } = await startFleet("observe");
    const known = JSON.parse((await ask(router.port, "acme")).text).headers;
    expect(known).toMatchObject({
      "x-cellfleet-cell": "old",
      "x-cellfleet-key": "default/tenant/acme",
      "x-cellfleet-epoch": "1",
    });
    const stranger = JSON.parse((await ask(router.port, undefined)).text).headers;
    const internal = Object.keys(stranger).filter((name) => name.startsWith("x-cellfleet-"));
    expect(new Set(internal)).toEqual(
      new Set(["x-cellfleet-cell", "x-cellfleet-nonce", "x-cellfleet-signature"]),
    );
    expect(await metric(router, 'cellfleet_router_confirmations_total{verdict="confirmed"}')).toBe(
      1,
    );
  });

  test.each(strange)("a request %s passes and is counted", async (...row) => {
    const [, tenant, headers, code] = row;
    const { router } = await startFleet("observe");
    expect((await ask(router.port, tenant, { headers })).status).toBe(200);
    expect(await metric(router, `cellfleet_router_would_refuse_total{code="${code}"}`)).toBe(1);
  });

  test("an answer that is not confirmed reaches the client, and is counted", async () => {
    const { router } = await startFleet("observe", (_req, res) => res.end("unconfirmed"));
    expect(await ask(router.port, "acme")).toMatchObject({ status: 200, text: "unconfirmed" });
    expect(await metric(router, 'cellfleet_router_confirmations_total{verdict="missing"}')).toBe(1);
    const series = 'cellfleet_router_would_refuse_total{code="OUTCOME_UNKNOWN"}';
    expect(await metric(router, series)).toBe(1);
  });

  test("what the gate says under our names does not reach the client", async () => {
    const { router } = await startFleet("observe");
    const answer = await ask(router.port, undefined);
    expect(answer.headers).not.toHaveProperty("x-cellfleet-confirm");
    expect(answer.headers["x-cell"]).toBe("old");
  });
});

describe("from stage to stage", () => {
  test("each step and its way back reaches traffic without a failed request", async () => {
    const { router, plane, cells } = await startFleet("pass-through");
    const stages: CellStage[] = ["observe", "enforce", "observe", "pass-through"];
    let stop = false;
    const failures: string[] = [];
    const load = (async () => {
      while (!stop) {
        const answer = await ask(router.port, "acme");
        if (answer.status !== 200) failures.push(codeOf(answer));
      }
    })();
    for (const [at, stage] of stages.entries()) {
      const next = cells.map((cell) => (cell.id === "old" ? { ...cell, stage } : cell));
      plane.serve(tableOf(at + 2, { acme: "old 1" }, {}, "fleet-1", { cells: next }));
      await until(async () =>
        expect(await adminJson(router, "/explain?tenant=acme")).toMatchObject({ stage }),
      );
      const stranger = codeOf(await ask(router.port, undefined));
      expect(stranger).toBe(stage === "enforce" ? "400 TENANT_MISSING" : "200 undefined");
    }
    stop = true;
    await load;
    expect(failures).toEqual([]);
  });

  test("with two cells before enforce nothing is guessed", async () => {
    const { router, plane, cells } = await startFleet("pass-through");
    const both = cells.map((cell) => ({ ...cell, stage: "observe" as const }));
    plane.serve(tableOf(2, { acme: "old 1" }, {}, "fleet-1", { cells: both }));
    await until(async () =>
      expect(codeOf(await ask(router.port, "nobody"))).toBe("404 TENANT_UNKNOWN"),
    );
    expect((await ask(router.port, "acme")).status).toBe(200);
  });
});
