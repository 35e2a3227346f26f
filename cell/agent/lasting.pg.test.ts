/**
 * WebSockets and event streams of a key that moves: they stand while the move may be taken back, and are
 * told to come again when the key has left.
 */
import { createServer, type Server } from "node:http";
import { connect, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";
import { closeNow, listenUrl } from "./fake-control.fixture.ts";

const op = "op_1move000001";
const restart = Buffer.from([0x88, 2, 0x03, 0xf4]);
const textFrame = (text: string): Buffer =>
  Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);

let server: TestPostgres;
let bench: AgentBench;
let agent: Agent;
let app: Server;
let number = 0;
/** The application's ends of what stands. */
const streams = new Set<{ readonly write: (text: string | Buffer) => unknown }>();
const heard: string[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  number += 1;
  heard.length = 0;
  bench = await openBench(server, `cell-lasting-${number}`);
  app = createServer((req, res) => {
    if (req.url !== "/events") return void res.writeHead(201).end("made");
    res.writeHead(200, { "content-type": "text/event-stream" });
    keep(res);
  });
  app.on("upgrade", (_req, socket: Socket) => {
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      heard.push(chunk.toString());
      socket.write(textFrame(`echo ${chunk.toString()}`));
    });
    socket.on("end", () => socket.end());
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
    keep(socket);
  });
  const service = { name: "default", health: undefined, replicas: [] };
  agent = await bench.serving({ services: [{ ...service, upstreams: [await listenUrl(app)] }] });
});
afterEach(async () => {
  await closeNow(app);
  await bench.close();
  streams.clear();
});

function keep(stream: Socket | import("node:http").ServerResponse): void {
  streams.add(stream);
  stream.on("close", () => streams.delete(stream));
}

const asSocket = ["connection: Upgrade", "upgrade: websocket", "sec-websocket-key: abc"];

function ask(path: string, more: readonly string[] = []) {
  const { hostname, port } = new URL(agent.endpoint);
  const socket = connect(Number(port), hostname);
  let bytes = Buffer.alloc(0);
  let isOver = false;
  socket.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
  });
  socket.on("close", () => {
    isOver = true;
  });
  socket.on("error", () => {});
  const lines = [
    ...[`GET ${path} HTTP/1.1`, "host: acme.test", ...more],
    ...[`${headers.tenant}: acme`, `${headers.keyspace}: default`, `${headers.key}: ${acmeKey}`],
    ...[`${headers.epoch}: 1`, `${headers.cell}: ${bench.store.name}`, `${headers.nonce}: n-1`],
  ];
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  const body = () => bytes.subarray(bytes.indexOf("\r\n\r\n") + 4);
  return { socket, body, text: () => body().toString(), isOver: () => isOver };
}

const closeGate = (attempt: number) =>
  bench.store.admin.query("select cellfleet.close_gates($1, $2, $3)", [
    ...[JSON.stringify([{ key: acmeKey, epoch: 1 }]), op, attempt],
  ]);
const openGate = (attempt: number) =>
  bench.store.admin.query("select cellfleet.open_gates($1, $2)", [op, attempt]);
const tell = (state: string, attempt: number) =>
  bench.store.admin.query("select cellfleet.apply_for_move($1, 1000)", [
    JSON.stringify([{ key: acmeKey, state, epoch: 1, op, attempt }]),
  ]);
const drained = async (attempt: number): Promise<boolean> =>
  (await bench.store.admin.query("select from cellfleet.gates_open($1, $2)", [op, attempt]))
    .rowCount === 0;

/** Of each kind one, which work. */
async function openBoth() {
  const tunnel = ask("/socket", asSocket);
  const reader = ask("/events");
  await until("both stand", () => streams.size === 2);
  return { tunnel, reader };
}
const isWorking = async (
  { tunnel, reader }: Awaited<ReturnType<typeof openBoth>>,
  word: string,
) => {
  tunnel.socket.write(word);
  for (const stream of streams) if ("writeHead" in stream) stream.write(`data: ${word}\n\n`);
  await until(`${word} is heard`, () => {
    return tunnel.text().includes(`echo ${word}`) && reader.text().includes(`data: ${word}`);
  });
};

test("they do not hold up the gate, stand through a fence that is taken back, and go on", async () => {
  const both = await openBoth();
  await isWorking(both, "one");
  await closeGate(1);
  await until("the gate is drained", () => drained(1));
  expect(agent.gate.inFlightOf(acmeKey)).toBe(2);
  await tell("fenced", 1);
  await until("the agent knows of the fence", async () => (await bench.ask(agent)).status === 421);
  await isWorking(both, "two");
  await tell("active", 2);
  await openGate(2);
  await until("acme is served", async () => (await bench.ask(agent)).status === 201);
  await isWorking(both, "three");
  expect([both.tunnel.isOver(), both.reader.isOver()]).toEqual([false, false]);
  both.tunnel.socket.destroy();
  both.reader.socket.destroy();
});

test("after the switch they are told to come again, and the application hears no more of them", async () => {
  const { tunnel, reader } = await openBoth();
  await isWorking({ tunnel, reader }, "one");
  await closeGate(1);
  await until("the gate is drained", () => drained(1));
  await tell("fenced", 1);
  await isWorking({ tunnel, reader }, "two");
  await tell("moved", 1);
  await until("the socket is told", () => tunnel.body().subarray(-4).equals(restart));
  await until("the stream is whole", () => reader.text().endsWith("retry: 500\n\n\r\n0\r\n\r\n"));
  tunnel.socket.write("never");
  await until("the application has lost both", () => streams.size === 0);
  await until("the socket is over", () => tunnel.isOver());
  expect(heard).toEqual(["one", "two"]);
  await until("nothing is in flight", () => agent.gate.inFlightOf(acmeKey) === 0);
  reader.socket.destroy();
});

test("what is in the middle of a frame or an event is ended behind it", async () => {
  const { tunnel, reader } = await openBoth();
  const [frame, event] = [textFrame("a long message"), "data: one\ndata: more\n\n"];
  const [half, rest] = [frame.subarray(0, 5), frame.subarray(5)];
  const write = (a: Buffer, b: string) => {
    for (const stream of streams) stream.write("writeHead" in stream ? b : a);
  };
  write(half, event.slice(0, 12));
  await until(
    "half is there",
    () => tunnel.body().length === 5 && reader.text().includes("data: one"),
  );
  await closeGate(1);
  await until("the gate is drained", () => drained(1));
  await tell("fenced", 1);
  await tell("moved", 1);
  await until("the agent knows", async () => (await bench.ask(agent)).status === 421);
  write(Buffer.concat([rest, textFrame("lost")]), `${event.slice(12)}data: lost\n\n`);
  await until(
    "both are over",
    () => tunnel.body().subarray(-4).equals(restart) && streams.size === 0,
  );
  expect(tunnel.body()).toEqual(Buffer.concat([frame, restart]));
  await until("the stream is whole", () => reader.text().endsWith("\r\n0\r\n\r\n"));
  // In two pieces, as it was written.
  expect(reader.text()).toContain("ta: more\n\n");
  expect(reader.text()).not.toContain("lost");
  tunnel.socket.destroy();
  reader.socket.destroy();
});
