/**
 * Reads from a real streaming replica: a session sees its own writes, however far the replica is behind.
 * The applications are real too, each on its own server: what a request sees shows where it went.
 */
import { createServer, type Server } from "node:http";
import pg from "pg";
import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { headers, positionCookie, positionHeader } from "../../contract/headers.ts";
import { must } from "../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { startReplica, type TestReplica } from "../store/replica.fixture.ts";
import { type AgentBench, openBench, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";
import { closeNow, listenUrl } from "./fake-control.fixture.ts";

let server: TestPostgres;
let replica: TestReplica;
let bench: AgentBench;
let primaryApp: Served;
let replicaApp: Served;
let onReplica: pg.Client;
let cells = 0;

type Served = {
  readonly url: string;
  readonly server: Server;
  readonly close: () => Promise<void>;
};

/** POST writes a row, GET says how many rows it sees and where. */
async function serveNotes(name: string, url: string): Promise<Served> {
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => {});
  const app = createServer((req, res) => {
    void (async () => {
      req.resume();
      if (req.method === "POST") await pool.query("insert into notes values (default)");
      const { rows } = await pool.query("select count(*)::integer as count from notes");
      const said = { at: name, count: rows[0].count };
      res.writeHead(req.url === "/empty" ? 204 : 200, { "x-app": name });
      res.end(req.url === "/empty" ? undefined : JSON.stringify(said));
    })().catch((error: unknown) => res.writeHead(500).end(String(error)));
  });
  const listening = await listenUrl(app);
  return {
    url: listening,
    server: app,
    close: async () => {
      await closeNow(app);
      await pool.end();
    },
  };
}

beforeAll(async () => {
  server = await startTestPostgres();
  replica = await startReplica(server);
});
afterAll(async () => {
  await replica.stop();
  await server.stop();
});
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
  await bench.store.admin.query("create table notes (id serial primary key)");
  await replica.caughtUp();
  onReplica = new pg.Client(replica.url(bench.store.name));
  await onReplica.connect();
  primaryApp = await serveNotes("primary", server.url(bench.store.name));
  replicaApp = await serveNotes("replica", replica.url(bench.store.name));
});
afterEach(async () => {
  await onReplica.query("select pg_wal_replay_resume()");
  await onReplica.end();
  await bench.close();
  await primaryApp.close();
  await replicaApp.close();
});

const replicaRef = "env:REPLICA";
const services = () => [
  {
    ...{ name: "default", health: "/", upstreams: [primaryApp.url] },
    replicas: [{ url: replicaApp.url, database: replicaRef }],
  },
];

async function reading(lagMs = 1000): Promise<Agent> {
  const agent = await bench.start(
    { services: services(), replicaLagMs: lagMs },
    { replicaDatabaseUrls: new Map([[replicaRef, replica.url(bench.store.name, "shop_agent")]]) },
  );
  await bench.applied(bench.control.own("default/tenant/acme", "active"));
  await until("the replica is used", async () => (await read(agent)).at === "replica");
  return agent;
}

type Seen = { at: string; count: number; position: string | undefined; cookie: string | undefined };

async function visit(
  agent: Agent,
  method: "GET" | "POST",
  extra: Readonly<Record<string, string>>,
  path = "/notes",
): Promise<Seen> {
  const answer = await bench.ask(agent, {
    method,
    path,
    extra,
    ...(method === "POST" ? { body: "" } : {}),
  });
  if (answer.status >= 300)
    return { at: answer.body, count: -1, position: undefined, cookie: undefined };
  const said =
    answer.body === ""
      ? { at: must(answer.header("x-app"), "x-app"), count: -1 }
      : JSON.parse(answer.body);
  expect(answer.header(headers.confirm)).toContain("epoch=1");
  return { ...said, position: answer.header(positionHeader), cookie: answer.header("set-cookie") };
}
const read = (agent: Agent, extra: Readonly<Record<string, string>> = {}) =>
  visit(agent, "GET", { [headers.routeClass]: "read", ...extra });
const write = (agent: Agent, path?: string) => visit(agent, "POST", {}, path);

test("a write tells its position, in a header and a cookie; reads and others do not", async () => {
  const agent = await reading();
  const { position = "", cookie = "" } = await write(agent);
  expect(position).toMatch(new RegExp(`^${bench.store.name}\\.[0-9A-F]+/[0-9A-F]+$`));
  expect(cookie).toBe(`${positionCookie}=${position}; Path=/; HttpOnly; SameSite=Lax`);
  expect((await write(agent, "/empty")).position).toContain(`${bench.store.name}.`);
  expect(await visit(agent, "GET", {})).toMatchObject({ at: "primary", position: undefined });
  expect((await read(agent)).position).toBeUndefined();
});

test("a session reads its own writes while replay is paused: from the primary, then from the replica", async () => {
  const agent = await reading(600_000);
  await replica.caughtUp();
  await onReplica.query("select pg_wal_replay_pause()");
  const written = await write(agent);
  const bySession = { [positionHeader]: must(written.position, "position") };
  const byCookie = { cookie: `a=b; ${positionCookie}=${written.position}; c=d` };
  for (let nth = 0; nth < 20; nth += 1) {
    expect(await read(agent, nth % 2 === 0 ? bySession : byCookie)).toMatchObject({
      ...{ at: "primary", count: written.count },
    });
  }
  // Somebody else's session has no such claim, and the lag is in bound.
  expect(await read(agent)).toMatchObject({ at: "replica", count: written.count - 1 });
  await onReplica.query("select pg_wal_replay_resume()");
  await until(
    "the replica serves the session",
    async () => (await read(agent, bySession)).at === "replica",
  );
  expect(await read(agent, bySession)).toMatchObject({ count: written.count });
  const metrics = await (await request(`${agent.admin}/metrics`)).body.text();
  expect(metrics).toMatch(
    /cellfleet_agent_reads_total\{to="primary",reason="behind-session"\} [2-9]\d\n/,
  );
  expect(metrics).toContain('cellfleet_agent_reads_total{to="primary",reason="silent"}');
});

test("no read of a session goes back in time while another keeps writing", async () => {
  const agent = await reading();
  let stop = false;
  const noise = (async () => {
    while (!stop) await write(agent);
  })();
  for (let nth = 0; nth < 60; nth += 1) {
    const written = await write(agent);
    const seen = await read(agent, { [positionHeader]: must(written.position, "position") });
    expect(seen.count).toBeGreaterThanOrEqual(written.count);
  }
  stop = true;
  await noise;
});

test("a replica beyond the allowed lag is left alone, and used again when it has caught up", async () => {
  const agent = await reading();
  await replica.caughtUp();
  await onReplica.query("select pg_wal_replay_pause()");
  await write(agent);
  await until("reads go to the primary", async () => (await read(agent)).at === "primary");
  await onReplica.query("select pg_wal_replay_resume()");
  await until("reads go to the replica", async () => (await read(agent)).at === "replica");
  expect((await read(agent)).count).toBe(1);
});

test.each([
  ["nonsense", "hello"],
  ["of another cell", "cell-99.0/1"],
  ["without a cell", "0/1"],
  ["cut off", "cell.0/"],
  ["far too large", "x".repeat(5000)],
])(
  "a position that is %s proves nothing: the primary answers, with a new one",
  async (_what, raw) => {
    const agent = await reading();
    const seen = await read(agent, { [positionHeader]: raw });
    expect(seen.at).toBe("primary");
    expect(
      (await read(agent, { [positionHeader]: must(seen.position, "position") })).position,
    ).toBeUndefined();
  },
);

test("an instance on a replica that is down is passed over, and no read fails", async () => {
  const agent = await reading();
  await closeNow(replicaApp.server);
  for (let nth = 0; nth < 5; nth += 1) expect((await read(agent)).at).toBe("primary");
});

test("requests that are no reads never reach the replica's instance", async () => {
  const agent = await reading();
  for (let nth = 0; nth < 6; nth += 1) expect((await write(agent)).at).toBe("primary");
  for (let nth = 0; nth < 6; nth += 1) expect((await visit(agent, "GET", {})).at).toBe("primary");
});

test("what is no replica of this cell's server is not used", async () => {
  const agent = await bench.start(
    { services: services() },
    // The primary itself, under the name of a replica.
    { replicaDatabaseUrls: new Map([[replicaRef, server.url(bench.store.name, "shop_agent")]]) },
  );
  await bench.applied(bench.control.own("default/tenant/acme", "active"));
  await until("it is said", () => bench.events("replica.lost").length > 0);
  await until("it serves", async () => (await read(agent)).at === "primary");
  expect(bench.events("replica.lost")[0]?.["reason"]).toContain("does not follow a primary");
});
