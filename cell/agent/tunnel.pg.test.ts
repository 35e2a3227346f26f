/** WebSocket upgrades through the gate, byte by byte on real sockets. */
import { createServer } from "node:http";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { type CellStore, createCellStore } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { askGate, type FakeApp, startFakeApp, startTestAgent, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";
import { closeNow, type FakeControl, listenUrl, startFakeControl } from "./fake-control.fixture.ts";

const acme = "default/tenant/acme";
let server: TestPostgres;
let store: CellStore;
let control: FakeControl;
let app: FakeApp;
let agent: Agent;
const appSockets = new Set<Socket>();

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "cell-tunnel");
  control = await startFakeControl();
  app = await startFakeApp();
  app.server.on("upgrade", (req, socket: Socket) => {
    appSockets.add(socket);
    socket.on("close", () => appSockets.delete(socket));
    socket.on("error", () => socket.destroy());
    // Half-open sockets are the server's to end, as any WebSocket server does.
    socket.on("end", () => socket.end());
    socket.resume();
    if (req.url === "/refuse") {
      socket.end("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno");
      return;
    }
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: yes\r\n${headers.confirm}: forged\r\n\r\nfirst,`,
    );
    socket.on("data", (chunk) => socket.write(`echo ${String(chunk)}`));
  });
  agent = await startTestAgent({ server, store, control, app });
  control.own(acme, "active");
  await until("acme is served", async () => {
    const answer = await askGate(agent.endpoint, { cell: store.name });
    return answer.status === 201;
  });
});
afterAll(async () => {
  await agent.close();
  for (const socket of appSockets) socket.destroy();
  await app.close();
  await control.close();
  await store.close();
  await server.stop();
});

const asked = ["connection: Upgrade", "upgrade: websocket", "sec-websocket-key: abc"];

function open(
  path: string,
  epoch: number = 1,
  endpoint: string = agent.endpoint,
  router: boolean = true,
  more: readonly string[] = asked,
) {
  const url = new URL(endpoint);
  const socket = connect(Number(url.port), url.hostname);
  let text = "";
  let closed = false;
  socket.on("data", (chunk) => {
    text += chunk.toString("latin1");
  });
  socket.on("close", () => {
    closed = true;
  });
  socket.on("error", () => {});
  const head = [
    `GET ${path} HTTP/1.1`,
    "host: acme.test",
    ...more,
    ...(router
      ? [
          ...[`${headers.tenant}: acme`, `${headers.keyspace}: default`, `${headers.key}: ${acme}`],
          ...[`${headers.epoch}: ${epoch}`, `${headers.cell}: ${store.name}`],
          `${headers.nonce}: n-7`,
        ]
      : []),
  ];
  socket.write(`${head.join("\r\n")}\r\n\r\n${more === asked ? "early " : ""}`);
  return { socket, text: () => text, closed: () => closed };
}

test("is tunnelled both ways, confirmed like any answer, and counted in flight", async () => {
  const tunnel = open("/socket");
  await until("the echo of the early bytes", () => tunnel.text().includes("echo early"));
  expect(tunnel.text()).toMatch(/^HTTP\/1\.1 101 /);
  expect(tunnel.text()).toContain(`${headers.confirm}: cell=cell-tunnel;epoch=1;lease=`);
  expect(tunnel.text()).not.toContain("forged");
  expect(tunnel.text()).toContain("sec-websocket-accept: yes");
  tunnel.socket.write("hello");
  await until("the echo", () => tunnel.text().includes("hello"));
  expect(agent.gate.inFlightOf(acme)).toBe(1);
  tunnel.socket.destroy();
  await until("it has left", () => agent.gate.inFlightOf(acme) === 0);
  await until("the application's end is closed too", () => appSockets.size === 0);
});

test("that the application refuses gets its answer", async () => {
  const tunnel = open("/refuse");
  await until("it is over", () => tunnel.closed());
  expect(tunnel.text()).toMatch(/^HTTP\/1\.1 426 /);
  expect(tunnel.text()).toContain(headers.confirm);
  expect(tunnel.text()).toMatch(/no$/);
  await until("it has left", () => agent.gate.inFlightOf(acme) === 0);
});

test("at a stale epoch is refused with its nonce before the application hears of it", async () => {
  const tunnel = open("/socket", 9);
  await until("it is over", () => tunnel.closed());
  expect(tunnel.text()).toMatch(/^HTTP\/1\.1 421 /);
  expect(tunnel.text()).toContain(`${headers.notAdmitted}: n-7`);
  expect(appSockets.size).toBe(0);
});

test("stands while its gate is closed, and ends when its key is fenced by no move", async () => {
  const tunnel = open("/socket");
  await until("it stands", () => tunnel.text().includes("first,"));
  expect(await agent.gate.close(acme, "test")).toBe("drained");
  tunnel.socket.write("still");
  await until("the echo", () => tunnel.text().includes("echo still"));
  agent.gate.open(acme, "test");
  control.own(acme, "fenced");
  await until("it is over", () => tunnel.closed());
  await until("the application's end is closed too", () => appSockets.size === 0);
  await until("it has left", () => agent.gate.inFlightOf(acme) === 0);
});

test("an event stream is not upgraded, and ends whole when its key has left, so that its reader comes back", async () => {
  let gone = false;
  const events = createServer((req, res) => {
    if (req.url !== "/events") return void res.writeHead(201).end();
    res.on("close", () => {
      gone = true;
    });
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.write("data: one\n\n");
  });
  const other = await startTestAgent({
    server,
    store,
    control,
    app: { url: await listenUrl(events) },
  });
  try {
    await until("it serves", async () => {
      control.own(acme, "active");
      return (await askGate(other.endpoint, { cell: store.name })).status === 201;
    });
    const reader = open("/events", 1, other.endpoint, true, []);
    await until("it reads", () => reader.text().includes("data: one"));
    expect(other.gate.inFlightOf(acme)).toBe(1);
    expect(await other.gate.close(acme, "test")).toBe("drained");
    expect(other.gate.inFlightOf(acme)).toBe(1);
    control.own(acme, "moved");
    await until("the stream is whole", () => reader.text().endsWith("\r\n0\r\n\r\n"));
    await until("the application hears of it", () => gone);
    reader.socket.destroy();
  } finally {
    await other.close();
    await closeNow(events);
  }
});

test("goes to another instance when one refuses connections, and to none that does not exist", async () => {
  control.own(acme, "active", 2);
  await until("the cell serves again", async () => {
    return (await askGate(agent.endpoint, { cell: store.name, epoch: 2 })).status === 201;
  });
  const dead = await startFakeApp();
  await dead.close();
  const service = { name: "default", health: undefined, replicas: [] };
  const second = await startTestAgent({
    ...{ server, store, control, app },
    config: { services: [{ ...service, upstreams: [dead.url, app.url] }] },
  });
  const third = await startTestAgent({
    ...{ server, store, control, app },
    config: { services: [{ ...service, upstreams: [dead.url] }] },
  });
  try {
    for (const one of [second, third]) {
      await until("it serves", async () => {
        const answer = await askGate(one.endpoint, { cell: store.name, epoch: 2 });
        return answer.status === 201 || answer.code === "APP_UNREACHABLE";
      });
    }
    for (let nth = 0; nth < 4; nth += 1) {
      const tunnel = open("/socket", 2, second.endpoint);
      await until("it stands", () => tunnel.text().includes("first,"));
      tunnel.socket.destroy();
    }
    const refused = open("/socket", 2, third.endpoint);
    await until("it is over", () => refused.closed());
    expect(refused.text()).toMatch(/^HTTP\/1\.1 503 /);
    expect(refused.text()).toContain(`${headers.notAdmitted}: n-7`);
    await until("it has left", () => third.gate.inFlight === 0);
  } finally {
    await second.close();
    await third.close();
  }
});

test("that named nothing stands in observe, and is cut when the cell enforces", async () => {
  control.settings.stage = "observe";
  await until("the gate observes", async () => {
    const answer = await askGate(agent.endpoint, { cell: "cell-99" });
    return answer.status === 201;
  });
  const tunnel = open("/socket", 1, agent.endpoint, false);
  await until("it stands", () => tunnel.text().includes("echo early"));
  expect(tunnel.text()).not.toContain(headers.confirm);
  control.settings.stage = "enforce";
  await until("it is cut", () => tunnel.closed());
  await until("it has left", () => agent.gate.inFlight === 0);
});
