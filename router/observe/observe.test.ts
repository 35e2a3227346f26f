/** What a router tells of its requests: its log's lines, what it remembers of them, its metrics, its readiness. */
import { describe, expect, test, vi } from "vitest";
import { rememberedAnswerSchema } from "../../contract/remembered-request.ts";
import { admin, adminJson, ask, createBench, metric, of, until } from "../running.fixture.ts";
import { wantsLine } from "./access-log.ts";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
/** Nobody listens there. */
const nowhere = "http://127.0.0.1:9";
const secret = "hunter2";

async function startRouter(flags: Record<string, unknown> = {}) {
  const app = await bench.startApp((req, res) => {
    res.statusCode = req.url?.startsWith("/broken") === true ? 500 : 200;
    res.end("fine\n");
  });
  const table = {
    tenantKey: [{ header: "x-tenant-id" }],
    cells: { a: { endpoints: [app] }, dead: { endpoints: [nowhere] } },
    tenants: { acme: "a", lost: "dead" },
  };
  return bench.startStatic(table, flags);
}

type Started = Awaited<ReturnType<typeof startRouter>>["router"];
const explain = async (router: Started, id: string) =>
  rememberedAnswerSchema.parse(await adminJson(router, `/explain?request=${id}`));
const idOf = (answer: { readonly headers: Record<string, unknown> }) =>
  String(answer.headers["x-request-id"]);

describe("explain request", () => {
  test("tells of a refusal by the id in the answer: tenant, table, decision, what is next", async () => {
    const { router } = await startRouter();
    const refused = await ask(router.port, "nobody", { path: `/x?token=${secret}` });
    expect(refused.status).toBe(404);
    expect(JSON.parse(refused.text)).toMatchObject({ error: { request_id: idOf(refused) } });
    const { items } = await explain(router, idOf(refused));
    expect(items).toEqual([
      expect.objectContaining({
        ...{ id: idOf(refused), kind: "refused", router: "router", decision: "refused" },
        ...{ tenant: "nobody", keyspace: "default", source: "header x-tenant-id", cell: null },
        ...{ status: 404, code: "TENANT_UNKNOWN", attempts: 0, revision: 1 },
        nextSteps: expect.arrayContaining(["cellctl tenant get nobody"]),
      }),
    ]);
    expect(items[0]?.trace.join("\n")).toContain("it was not given to any cell");
  });

  test("tells of a dead cell: which one, which endpoint, how often it was tried", async () => {
    const { router } = await startRouter();
    const failed = await ask(router.port, "lost");
    expect(failed.status).toBe(503);
    const [found] = (await explain(router, idOf(failed))).items;
    expect(found).toMatchObject({
      ...{ kind: "failed", status: 503, code: "CELL_UNREACHABLE", decision: "forwarded" },
      ...{
        cell: "dead",
        endpoint: nowhere,
        epoch: 1,
        nextSteps: ["cellctl cell get dead", "cellctl explain CELL_UNREACHABLE"],
      },
    });
    expect(found?.failures[0]).toBe(`${nowhere}: connect`);
  });

  test("tells of a failure of the application, and of nothing that the request carried", async () => {
    const { router } = await startRouter();
    const failed = await ask(router.port, "acme", {
      path: `/broken/${secret}?token=${secret}`,
      headers: { cookie: secret, authorization: secret, "user-agent": secret },
    });
    const answer = await admin(router, `/explain?request=${idOf(failed)}`);
    expect(answer.text).not.toContain(secret);
    await until(async () =>
      expect((await explain(router, idOf(failed))).items[0]).toMatchObject({
        ...{ kind: "failed", status: 500, code: null, cell: "a", attempts: 1 },
      }),
    );
  });

  test("keeps failures although refusals flood it, forgets the oldest, and says since when it knows", async () => {
    const { router } = await startRouter({ explainRequestsMax: 100, accessLog: "off" });
    const failed = await ask(router.port, "lost");
    const first = await ask(router.port, "nobody");
    for (let nth = 0; nth < 50; nth += 1) await ask(router.port, "nobody");
    const late = await explain(router, idOf(first));
    expect(late.items).toEqual([]);
    expect(late.remembers.refused).toMatchObject({ kept: 40, max: 40 });
    expect(Date.parse(late.remembers.refused.since ?? "")).toBeGreaterThan(0);
    expect(late.remembers.failed).toEqual({ kept: 1, max: 50, since: null });
    expect((await explain(router, idOf(failed))).items).toHaveLength(1);
    expect(await metric(router, 'cellfleet_router_explainable_requests{kind="refused"}')).toBe(40);
  });

  test("remembers within a bound of bytes", async () => {
    const { router } = await startRouter({ explainBytesMax: 100_000, accessLog: "off" });
    for (let nth = 0; nth < 60; nth += 1) await ask(router.port, "nobody");
    const { kept } = (await explain(router, "none")).remembers.refused;
    expect(kept).toBeGreaterThan(5);
    expect(kept).toBeLessThan(50);
  });

  test("knows one in a hundred of those that went well", async () => {
    const { router } = await startRouter({ accessLog: "off" });
    for (let nth = 0; nth < 100; nth += 1) await ask(router.port, "acme");
    await until(async () => expect((await explain(router, "none")).remembers.sampled.kept).toBe(1));
  });
});

describe("the access log", () => {
  test("may keep to what did not go well", async () => {
    const { router, lines } = await startRouter({ accessLog: "errors" });
    await ask(router.port, "acme");
    await ask(router.port, "nobody");
    await ask(router.port, "lost");
    await until(() =>
      expect(of(lines, "request.done").map(({ status }) => status)).toEqual([404, 503]),
    );
  });

  test("samples what went well, and never what did not", () => {
    const chances = [0.05, 0.2];
    const lines = (mode: "on" | "off" | "errors", share: number, status: number, flag = "ok") =>
      chances.map((chance) => wantsLine({ mode, share }, { status, flag }, () => chance));
    expect(lines("on", 0.1, 200)).toEqual([true, false]);
    expect(lines("on", 0.1, 304)).toEqual([true, false]);
    for (const status of [0, 400, 404, 500, 503]) {
      expect(lines("on", 0, status)).toEqual([true, true]);
      expect(lines("errors", 0, status)).toEqual([true, true]);
      expect(lines("off", 1, status)).toEqual([false, false]);
    }
    expect(lines("on", 0, 200, "client-gone")).toEqual([true, true]);
    expect(lines("errors", 1, 200)).toEqual([false, false]);
  });

  test("says no query, cookie or credential", async () => {
    const { router, lines } = await startRouter();
    await ask(router.port, "acme", {
      path: `/x?token=${secret}`,
      headers: { cookie: `a=${secret}`, authorization: `Bearer ${secret}` },
    });
    await until(() => expect(of(lines, "request.done")).toHaveLength(1));
    expect(JSON.stringify(lines)).not.toContain(secret);
    expect(of(lines, "request.done")[0]).toMatchObject({
      path: "/x",
      overhead_ms: expect.any(Number),
    });
  });
});

describe("metrics", () => {
  test("of the busiest tenants count those that exist, and no others", async () => {
    const { router } = await startRouter();
    for (const tenant of ["acme", "acme", "lost", "nobody"]) await ask(router.port, tenant);
    const name = "cellfleet_router_tenant_requests_total";
    await until(async () => {
      expect(await metric(router, `${name}{tenant="acme"}`)).toBe(2);
      expect(await metric(router, `${name}{tenant="lost"}`)).toBe(1);
    });
    expect((await admin(router, "/metrics")).text).not.toContain(`tenant="nobody"`);
  });

  test("name the cell of what is under way, and every cell before its first error", async () => {
    const { router } = await startRouter();
    await ask(router.port, "acme");
    const left = /cellfleet_router_inflight_requests\{cell="a",endpoint="http:[^"]+"\} 0/;
    await until(async () => expect((await admin(router, "/metrics")).text).toMatch(left));
    const { text } = await admin(router, "/metrics");
    for (const series of [
      'cellfleet_router_upstream_errors_total{cell="dead",reason="connect"} 0',
      'cellfleet_router_fenced_total{cell="dead"} 0',
      'cellfleet_router_held_requests{cell="a"} 0',
    ]) {
      expect(text).toContain(series);
    }
  });
});

test("the admin port lists its addresses, and each of them is there", async () => {
  const { router } = await startRouter({ workers: 1 });
  const { status, text } = await admin(router, "/");
  expect(status).toBe(200);
  const listed = [...text.matchAll(/^\/\w+/gm)].map(([path]) => path);
  expect(new Set(listed).size).toBeGreaterThan(5);
  for (const path of listed.filter((one) => one !== "/workers" && one !== "/explain")) {
    expect((await admin(router, path)).status).toBe(200);
  }
});

describe("readiness", () => {
  test("says each check when it is asked to; probes read the status", async () => {
    const { router } = await startRouter();
    expect(await admin(router, "/livez")).toMatchObject({ status: 200, text: "ok\n" });
    expect(await admin(router, "/readyz")).toMatchObject({ status: 200, text: "ready\n" });
    expect(await admin(router, "/healthz?verbose")).toMatchObject({
      status: 200,
      text: expect.stringMatching(
        /^\[\+\]running ok: not draining\n\[\+\]table ok: routing table at revision 1\n(\[\+\].*\n)*ready\n$/,
      ),
    });
  });

  test("is over as soon as the router drains, and the checks say so", async () => {
    const { router } = await startRouter({ drainDelayMs: 60_000 });
    const closed = router.close();
    await until(async () =>
      expect(await admin(router, "/readyz?verbose")).toMatchObject({
        status: 503,
        text: expect.stringMatching(/^\[-\]running failed: draining\n[\s\S]*\ndraining\n$/),
      }),
    );
    expect((await admin(router, "/livez")).status).toBe(200);
    router.hurry();
    await closed;
  });
});

test("a page in a browser cannot act on the admin port", async () => {
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: ["http://127.0.0.1:9"] } },
  });
  const restart = (headers: Record<string, string>) =>
    ask(router.adminPort, undefined, { method: "POST", path: "/workers/restart", headers });
  expect((await restart({ origin: "http://evil.test" })).text).toMatch(/Pages of a browser/);
  expect((await restart({})).text).toMatch(/serves in one thread/);
});
