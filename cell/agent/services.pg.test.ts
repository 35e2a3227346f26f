/** Several services, several instances of one: which application a request reaches. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, type FakeApp, openBench, startFakeApp, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";

let server: TestPostgres;
let bench: AgentBench;
let cells = 0;
const apps: FakeApp[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
});
afterEach(async () => {
  await bench.close();
  for (const app of apps.splice(0)) await app.close();
});

async function another(): Promise<FakeApp> {
  const app = await startFakeApp();
  apps.push(app);
  return app;
}
const service = (name: string, upstreams: readonly string[], health?: string) => ({
  ...{ name, health, upstreams },
  replicas: [],
});
const askFor = (agent: Agent, name: string | undefined) =>
  bench.ask(agent, { extra: { [headers.service]: name } });

/** Where nobody listens. */
async function freePort(): Promise<string> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return `http://127.0.0.1:${port}`;
}

test("the service that a request names gets it; without a name it is `default`", async () => {
  const api = await another();
  const services = [service("default", [bench.app.url]), service("api", [api.url])];
  const agent = await bench.serving({ services });
  expect((await askFor(agent, "api")).status).toBe(201);
  expect([api.seen.length, bench.app.seen.length]).toEqual([1, 0]);
  expect((await askFor(agent, undefined)).status).toBe(201);
  expect([api.seen.length, bench.app.seen.length]).toEqual([1, 1]);
  expect(bench.control.calls.at(-1)?.services).toEqual(["default", "api"]);
  const refused = await askFor(agent, "billing");
  expect(refused).toMatchObject({ status: 503, code: "SERVICE_UNKNOWN" });
  expect(refused.header(headers.notAdmitted)).toBe("nonce-1");
  expect(agent.gate.inFlight).toBe(0);
});

test("without a name and without a `default` the only service is meant, and of two none", async () => {
  const agent = await bench.serving({ services: [service("web", [bench.app.url])] });
  expect((await askFor(agent, undefined)).status).toBe(201);
  const api = await another();
  const two = await bench.start({
    services: [service("web", [bench.app.url]), service("api", [api.url])],
  });
  await until("it serves web", async () => (await askFor(two, "web")).status === 201);
  expect((await askFor(two, undefined)).code).toBe("SERVICE_UNKNOWN");
});

test("requests go to the instance with the fewest in flight, and in turn among equals", async () => {
  const second = await another();
  const agent = await bench.serving({
    services: [service("default", [bench.app.url, second.url])],
  });
  second.seen.length = 0;
  for (let nth = 0; nth < 10; nth += 1) await bench.ask(agent);
  expect([bench.app.seen.length, second.seen.length]).toEqual([5, 5]);
  const release = second.hold();
  const held: Array<Promise<unknown>> = [];
  for (let sent = 11; second.seen.length < 6; sent += 1) {
    held.push(bench.ask(agent));
    await until("an application has it", () => bench.app.seen.length + second.seen.length === sent);
  }
  for (let nth = 0; nth < 5; nth += 1) await bench.ask(agent);
  // While one is busy, all others went to the idle one.
  expect(second.seen.length).toBe(6);
  release();
  await Promise.all(held);
});

test("an instance that refuses connections is passed over, without a failed request", async () => {
  const dying = await another();
  const agent = await bench.serving({
    services: [service("default", [dying.url, bench.app.url])],
  });
  await until("both live", () => bench.events("app.found").length === 2);
  // Gone a moment after its probe: only requests can find out.
  await dying.close();
  const before = bench.app.seen.length;
  for (let nth = 0; nth < 10; nth += 1) {
    const answer = await bench.ask(agent, { method: "POST", body: "hello" });
    expect(answer.status).toBe(201);
  }
  expect(bench.app.seen.length - before).toBe(10);
});

test("all instances refusing is told as such, and may be sent again", async () => {
  const agent = await bench.serving({
    services: [service("default", [bench.app.url]), service("api", [await freePort()])],
  });
  const answer = await askFor(agent, "api");
  expect(answer).toMatchObject({ status: 503, code: "APP_UNREACHABLE" });
  expect(answer.header(headers.notAdmitted)).toBe("nonce-1");
});

test("each instance is asked on its service's path; one living instance keeps a service alive", async () => {
  const asked: string[] = [];
  const sick = createServer((req, res) => {
    asked.push(req.url ?? "");
    res.writeHead(500).end();
  });
  await new Promise<void>((resolve) => sick.listen(0, "127.0.0.1", resolve));
  const sickUrl = `http://127.0.0.1:${(sick.address() as AddressInfo).port}`;
  try {
    const agent = await bench.serving({
      services: [
        service("default", [bench.app.url, sickUrl], "/healthz"),
        service("api", [sickUrl], "/up?deep=1"),
      ],
    });
    const reachable = () => bench.control.calls.at(-1)?.app.reachable;
    await until(
      "both were asked",
      () => asked.includes("/healthz") && asked.includes("/up?deep=1"),
    );
    expect(reachable()).toBe(false);
    const ready = await request(`${agent.admin}/readyz`);
    expect(await ready.body.text()).toContain("service api");
    // The one that answered its probe badly gets nothing while another is there.
    bench.app.seen.length = 0;
    await until("it is seen", () => bench.events("app.lost").length >= 2);
    for (let nth = 0; nth < 6; nth += 1) expect((await bench.ask(agent)).status).toBe(201);
  } finally {
    sick.closeAllConnections();
    sick.close();
  }
});
