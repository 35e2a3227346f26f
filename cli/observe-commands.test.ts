/** `cellctl top` and `cellctl explain request`, against admin ports that answer as a router does. */
import { afterEach, describe, expect, test } from "vitest";
import { cellctl, type StubServer, startStub } from "./cli.fixture.ts";

const stubs: StubServer[] = [];
afterEach(async () => {
  for (const stub of stubs.splice(0)) await stub.close();
});
async function start(answers: Parameters<typeof startStub>[0]): Promise<StubServer> {
  const stub = await startStub(answers);
  stubs.push(stub);
  return stub;
}

const span = { kept: 1, max: 10, since: null };
const memory = {
  router: "router-1",
  startedAt: "2026-11-22T08:00:00.000Z",
  remembers: {
    failed: span,
    refused: { ...span, since: "2026-11-22T08:30:00.000Z" },
    sampled: span,
  },
};
const remembered = {
  ...{ id: "r-1", router: "router-1", at: "2026-11-22T08:31:00.000Z", kind: "failed" },
  ...{ traceId: "t", method: "GET", protocol: "HTTP/1.1", status: 503, code: "CELL_UNREACHABLE" },
  ...{ message: "no", flag: "connect", tenant: "acme", keyspace: "default", source: "header" },
  ...{ service: "default", cell: "cell-02", key: "default/tenant/acme", epoch: 3, revision: 9 },
  ...{ decision: "forwarded", attempts: 1, endpoint: "http://e", failures: [], cellSaid: null },
  timings: { totalMs: 2, overheadMs: 1, holdMs: 0, queueMs: 0, connectMs: 1, firstByteMs: 0 },
  trace: ["header named tenant acme", "it was given to a cell once"],
  nextSteps: ["cellctl cell get cell-02"],
};

const routerRow = (id: string, admin: string) => ({
  ...{ id, admin, instance: "i", revision: 9, behind: 0, live: true, seenMs: 5, release: "0" },
});
/** Nobody listens there. */
const nowhere = "http://127.0.0.1:9";

describe("explain request", () => {
  test("asks every router that the fleet knows, and tells the story, the next step and who is silent", async () => {
    const admin = await start({
      "GET /explain": ({ query }) => ({
        body: { ...memory, items: query["request"] === "r-1" ? [remembered] : [] },
      }),
    });
    const plane = await start({
      "GET /v1/routers": () => ({
        body: {
          items: [routerRow("router-1", admin.origin), routerRow("router-2", nowhere)],
          next: null,
        },
      }),
    });
    const told = await cellctl(["explain", "request", "r-1"], { env: plane.env });
    expect(told.code).toBe(0);
    expect(told.stdout).toContain("503 CELL_UNREACHABLE (connect)");
    expect(told.stdout).toContain("it was given to a cell once");
    expect(told.stdout).toContain("router router-2");
    expect(told.stderr).toContain("cellctl cell get cell-02");

    const json = await cellctl(["explain", "request", "r-1", "-o", "json"], { env: plane.env });
    expect(JSON.parse(json.stdout)).toMatchObject({
      id: "r-1",
      items: [remembered],
      silent: [{ router: "router-2" }],
    });

    const lost = await cellctl(["explain", "request", "r-2"], { env: plane.env });
    expect(lost.code).toBe(5);
    expect(lost.stderr).toContain("refusals since 2026-11-22T08:30:00.000Z");
    expect(lost.stderr).toContain("router-2 does not answer");
  });

  test("asks a router by its admin port, without a fleet", async () => {
    const admin = await start({
      "GET /explain": () => ({ body: { ...memory, items: [remembered] } }),
    });
    const told = await cellctl(["explain", "request", "r-1", "--router-admin", admin.origin]);
    expect(told.code).toBe(0);
    expect(told.stdout).toContain("cell-02");
  });

  test("wants an id, and a URL that is one", async () => {
    expect((await cellctl(["explain", "request"])).code).toBe(64);
    expect((await cellctl(["explain", "request", "x", "--router-admin", "nowhere"])).code).toBe(64);
  });
});

describe("top", () => {
  const p = "cellfleet_router_";
  const page = (requests: number) =>
    [
      `${p}requests_total{cell="a",method="GET",code_class="2xx"} ${requests}`,
      `${p}tenant_requests_total{tenant="acme"} ${requests}`,
      `${p}table_revision 4`,
      "",
    ].join("\n");
  const startAdmin = () => {
    let requests = 0;
    return start({
      "GET /metrics": () => {
        requests += 100;
        return { body: page(requests) };
      },
    });
  };

  test("is one look where no terminal is: cells, tenants, routers", async () => {
    const admin = await startAdmin();
    const args = ["top", "--router-admin", admin.origin, "--interval", "200ms"];
    const shown = await cellctl(args);
    expect(shown.code).toBe(0);
    for (const head of ["CELL", "TENANT", "ROUTER", "acme"]) expect(shown.stdout).toContain(head);
    expect(admin.asked).toHaveLength(2);
    const json = JSON.parse((await cellctl([...args, "-o", "json"])).stdout);
    expect(json.cells[0]).toMatchObject({ id: "a", errorShare: 0 });
    expect(json.cells[0].requestsPerSecond).toBeGreaterThan(0);
    expect(json.routers[0]).toMatchObject({ revision: 4 });
    expect((await cellctl([...args, "tenants", "-o", "name"])).stdout).toBe("acme\n");
  });

  test("redraws itself on a terminal until Ctrl-C", async () => {
    const admin = await startAdmin();
    const stop = new AbortController();
    const running = cellctl(["top", "--router-admin", admin.origin, "--interval", "200ms"], {
      terminal: true,
      interrupted: stop.signal,
    });
    while (admin.asked.length < 3) await new Promise((again) => setTimeout(again, 20));
    stop.abort();
    const shown = await running;
    expect(shown.code).toBe(130);
    expect(shown.stdout.split("\u001b[H\u001b[J").length).toBeGreaterThan(1);
  });

  test("fails when no router answers, and on words that it does not know", async () => {
    const none = await cellctl(["top", "--router-admin", nowhere, "--interval", "200ms"]);
    expect(none.code).toBe(5);
    expect(none.stderr).toContain("no router shows its metrics");
    expect((await cellctl(["top", "everything"])).code).toBe(64);
    expect((await cellctl(["top", "--sort", "luck"])).code).toBe(64);
    expect((await cellctl(["top", "-n", "0"])).code).toBe(64);
  });
});
