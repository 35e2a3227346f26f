/** Tunnels through a whole router, between real WebSockets: what passes, what ends them, what bounds them. */
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { afterEach, describe, expect, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { rawExchange, startRawPeer } from "../../runtime/http/peers.fixture.ts";
import { codeOf, createBench, metric, of, until } from "../running.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
const clients: WebSocket[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.terminate();
});

type App = { readonly url: string; readonly server: WebSocketServer };

async function startSocketApp(
  options: ConstructorParameters<typeof WebSocketServer>[0] = {},
): Promise<App> {
  const http = createServer((_req, res) => res.end("plain"));
  const server = new WebSocketServer({ server: http, ...options });
  server.on("connection", (socket) => socket.on("error", () => {}));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  bench.closers.push(async () => {
    for (const socket of server.clients) socket.terminate();
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  });
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, server };
}

const startRouterFor = (url: string, flags: Record<string, unknown> = {}) =>
  bench.startStatic(
    { cells: { a: { endpoints: [url] } }, tenants: { acme: "a", globex: "a" } },
    flags,
  );

function open(port: number, tenant: string, protocols: string[] = []): WebSocket {
  const client = new WebSocket(`ws://127.0.0.1:${port}/live`, protocols, {
    headers: { "x-tenant-id": tenant },
  });
  client.on("error", () => {});
  clients.push(client);
  return client;
}
const opened = (client: WebSocket) =>
  new Promise<void>((resolve, reject) => {
    client.once("open", resolve);
    client.once("error", reject);
  });
const closed = (client: WebSocket) =>
  new Promise<number>((resolve) => client.once("close", resolve));
const refusal = (client: WebSocket) =>
  new Promise<IncomingMessage>((resolve) =>
    client.once("unexpected-response", (_req, res) => {
      res.resume();
      resolve(res);
    }),
  );

const handshake = (rest: string = "") =>
  `GET /live HTTP/1.1\r\nHost: h\r\nX-Tenant-Id: acme\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${rest}\r\n`;
const accepted =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

describe("what passes", () => {
  test("messages of any size, both ways, in order, with the protocol that was agreed on", async () => {
    const { url, server } = await startSocketApp({ maxPayload: 64 << 20 });
    server.on("connection", (socket) =>
      socket.on("message", (message, binary) => socket.send(message, { binary })),
    );
    const { router } = await startRouterFor(url);
    const client = open(router.port, "acme", ["chat.v2", "chat.v1"]);
    await opened(client);
    expect([client.protocol, client.extensions]).toEqual(["chat.v2", ""]);
    const sizes = [1, 125, 126, 65_536, 8 << 20, 3];
    const got: Buffer[] = [];
    client.on("message", (message: Buffer) => got.push(message));
    for (const size of sizes) client.send(Buffer.alloc(size, size % 251));
    await until(() => expect(got.map(({ length }) => length)).toEqual(sizes));
    expect(got.map(([first]) => first)).toEqual(sizes.map((size) => size % 251));
    expect(await metric(router, "cellfleet_router_ws_open")).toBe(1);
    expect(await metric(router, "cellfleet_router_ws_total")).toBe(1);
  });

  test("extensions, and nothing that is of one connection or of the house", async () => {
    const { url, server } = await startSocketApp({ perMessageDeflate: true });
    const heads: IncomingMessage[] = [];
    server.on("connection", (_socket, req) => heads.push(req));
    const { router } = await startRouterFor(url);
    const client = new WebSocket(`ws://127.0.0.1:${router.port}//a//live?x=%zz`, [], {
      headers: {
        ...{ "x-tenant-id": "acme", "x-cellfleet-epoch": "9", "proxy-authorization": "Basic eA==" },
        ...{ te: "gzip", "keep-alive": "9", "x-forwarded-for": "203.0.113.9" },
      },
    });
    clients.push(client);
    await opened(client);
    expect(client.extensions).toBe("permessage-deflate");
    const [head] = heads;
    expect(head?.url).toBe("//a//live?x=%zz");
    expect(head?.headers).toMatchObject({ "x-forwarded-for": "127.0.0.1", upgrade: "websocket" });
    for (const name of ["x-cellfleet-epoch", "proxy-authorization", "keep-alive", "te"]) {
      expect(head?.headers).not.toHaveProperty(name);
    }
  });

  test("a slow reader stops the sender, on either side", async () => {
    const { url, server } = await startSocketApp({ maxPayload: 64 << 20 });
    const inside: WebSocket[] = [];
    server.on("connection", (socket) => inside.push(socket));
    const { router } = await startRouterFor(url);
    const client = open(router.port, "acme");
    await opened(client);
    await until(() => expect(inside).toHaveLength(1));
    const [cell] = inside;
    if (cell === undefined) throw new Error("nobody came");
    for (const [reader, writer] of [
      [client, cell],
      [cell, client],
    ] as const) {
      let count = 0;
      reader.on("message", () => {
        count += 1;
      });
      reader.pause();
      for (let sent = 0; sent < 64; sent += 1) writer.send(Buffer.alloc(1 << 20));
      // What nobody reads stays with who wrote it: neither the router nor the kernel takes 64 MiB.
      await until(() => expect(writer.bufferedAmount).toBeGreaterThan(0));
      let left = -1;
      await until(() => {
        const before = left;
        left = writer.bufferedAmount;
        expect(left).toBe(before);
      });
      expect(left).toBeGreaterThan(30 << 20);
      reader.resume();
      await until(() => expect(count).toBe(64));
    }
  });

  test("h2c and a websocket with a body are plain requests", async () => {
    const { url } = await startSocketApp();
    const { router } = await startRouterFor(url);
    const h2c = handshake("HTTP2-Settings: AA\r\n").replace("websocket", "h2c");
    const body = handshake("Content-Length: 5\r\n");
    for (const text of [h2c, `${body}hello`]) {
      const answer = rawExchange(
        router.port,
        `${text}`.replace("Upgrade\r\n", "Upgrade, close\r\n"),
      );
      expect((await answer).text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*plain/);
    }
  });
});

describe("a refusal", () => {
  test("of the cell reaches the client as it is, and its connection ends", async () => {
    const peer = await startRawPeer((socket, soFar) => {
      if (soFar.endsWith("\r\n\r\n")) {
        socket.write("HTTP/1.1 403 No\r\nX-Why: caf\xe9\r\nContent-Length: 2\r\n\r\nno", "latin1");
      }
    });
    bench.closers.push(peer.close);
    const { router } = await startRouterFor(peer.url);
    const { text, ended } = await rawExchange(router.port, handshake());
    expect(text).toMatch(
      /^HTTP\/1.1 403 No\r\nX-Why: caf\xe9\r\nContent-Length: 2\r\n[\s\S]*\r\n\r\nno$/,
    );
    expect(ended).toBe("end");
    await until(() => expect(peer.open()).toBe(0));
  });

  test.each([
    ["with a length", "HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno"],
    ["in chunks", "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n"],
  ])("that the cell cuts off looks cut off, %s", async (_name, answer) => {
    const peer = await startRawPeer((socket, soFar) => {
      if (soFar.endsWith("\r\n\r\n")) socket.end(answer);
    });
    bench.closers.push(peer.close);
    const { router } = await startRouterFor(peer.url);
    expect(await rawExchange(router.port, handshake())).toMatchObject({ ended: "reset" });
  });

  test.each([
    ["a 101 to something else", accepted.replace("websocket", "h2c"), "502 CELL_PROTOCOL"],
    ["bytes that are no answer", "what?\r\n", "502 CELL_PROTOCOL"],
    [
      "a coding that is not chunked",
      "HTTP/1.1 403 No\r\nTransfer-Encoding: gzip\r\n",
      "502 CELL_PROTOCOL",
    ],
  ])("of ours follows %s", async (_name, answer, code) => {
    const peer = await startRawPeer((socket, soFar) => {
      if (soFar.endsWith("\r\n\r\n")) socket.write(`${answer}\r\n`);
    });
    bench.closers.push(peer.close);
    const { router } = await startRouterFor(peer.url);
    const { statusCode = 0, headers } = await refusal(open(router.port, "acme"));
    expect(codeOf({ status: statusCode, headers, text: "" })).toBe(code);
    await until(() => expect(peer.open()).toBe(0));
  });

  test("follows a tenant's tunnels beyond its limit, and leaves room for others", async () => {
    const { url } = await startSocketApp();
    const { router } = await startRouterFor(url, { wsPerTenantMax: 2, wsMax: 3 });
    const [first] = await Promise.all(
      [1, 2].map(async () => {
        const client = open(router.port, "acme");
        await opened(client);
        return client;
      }),
    );
    expect((await refusal(open(router.port, "acme"))).headers["x-cellfleet-error"]).toBe(
      "TENANT_LIMITED",
    );
    await opened(open(router.port, "globex"));
    expect((await refusal(open(router.port, "globex"))).statusCode).toBe(503);
    first?.close();
    await until(async () => expect(await metric(router, "cellfleet_router_ws_open")).toBe(2));
    await opened(open(router.port, "acme"));
  });
});

describe("bytes before the answer", () => {
  test("never reach the cell unless it says 101, and reach it then", async () => {
    let answer: (() => void) | undefined;
    const peer = await startRawPeer((socket, soFar) => {
      answer = () =>
        socket.write(
          soFar.includes("X-No")
            ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            : `${accepted}\r\n`,
        );
    });
    bench.closers.push(peer.close);
    const { router } = await startRouterFor(peer.url);
    for (const [nth, rest] of ["", "X-No: 1\r\n"].entries()) {
      const client = connect(router.port, "127.0.0.1");
      const early = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
      client.on("error", () => {});
      client.write(handshake(rest) + early);
      await until(() => expect(peer.seen[nth]).toMatch(/\r\n\r\n$/));
      expect(peer.seen[nth]).not.toContain("smuggled");
      const got = new Promise((resolve) => client.once("data", resolve));
      answer?.();
      await got;
      if (rest === "") await until(() => expect(peer.seen[nth]).toContain(early));
      else {
        await new Promise((resolve) => client.once("end", resolve));
        expect(peer.seen[nth]).not.toContain("smuggled");
      }
      client.destroy();
      await until(() => expect(peer.open()).toBe(0));
    }
  });

  test("a client that resets its connection before the answer leaves nothing behind", async () => {
    const peer = await startRawPeer(() => {});
    bench.closers.push(peer.close);
    const { router, lines } = await startRouterFor(peer.url);
    const client = connect(router.port, "127.0.0.1");
    client.write(handshake());
    await until(() => expect(peer.open()).toBe(1));
    client.resetAndDestroy();
    await until(() => expect(peer.open()).toBe(0));
    await until(() => expect(of(lines, "request.done")).toMatchObject([{ status: 0 }]));
    expect(of(lines, "router.trouble")).toEqual([]);
    expect(await metric(router, "cellfleet_router_ws_open")).toBe(0);
  });
});

describe("a tunnel ends", () => {
  const endings = (router: Parameters<typeof metric>[0], reason: string) =>
    until(async () =>
      expect(await metric(router, `cellfleet_router_ws_closed_total{reason="${reason}"}`)).toBe(1),
    );

  test("when its cell dies, and when its client does", async () => {
    const { url, server } = await startSocketApp();
    const { router } = await startRouterFor(url);
    const first = open(router.port, "acme");
    await opened(first);
    for (const socket of server.clients) socket.terminate();
    expect(await closed(first)).toBe(1006);
    await endings(router, "cell");
    const second = open(router.port, "acme");
    await opened(second);
    second.terminate();
    await endings(router, "client");
    await until(() => expect(server.clients.size).toBe(0));
  });

  test("with the close frames of both sides, as they were sent", async () => {
    const { url, server } = await startSocketApp();
    server.on("connection", (socket) => socket.on("message", () => socket.close(4001, "bye")));
    const { router } = await startRouterFor(url);
    const client = open(router.port, "acme");
    await opened(client);
    client.send("go");
    expect(await closed(client)).toBe(4001);
    await until(async () => expect(await metric(router, "cellfleet_router_ws_open")).toBe(0));
  });

  test.each([
    ["idle", { wsIdleMs: 50 }],
    ["max-age", { wsMaxAgeMs: 50 }],
  ])("at its limit: %s", async (reason, flags) => {
    const { url, server } = await startSocketApp();
    const { router } = await startRouterFor(url, flags);
    const client = open(router.port, "acme");
    expect(await closed(client)).toBe(1006);
    await endings(router, reason);
    await until(() => expect(server.clients.size).toBe(0));
  });

  test("in a drain: by a FIN behind the bytes that were under way, and the router ends", async () => {
    const peer = await startRawPeer((socket, soFar) => {
      if (!soFar.includes("\r\n\r\n")) return;
      // From here on it reads nothing, so what its client sends stays with the router, unread.
      socket.pause();
      socket.write(`${accepted}\r\nhello`);
    });
    bench.closers.push(peer.close);
    const { router } = await startRouterFor(peer.url);
    const client = connect(router.port, "127.0.0.1", () => client.write(handshake()));
    bench.closers.push(async () => client.destroy());
    let text = "";
    let ended = "";
    client.on("data", (data) => {
      text += data.toString("latin1");
    });
    client.on("end", () => {
      ended ||= "FIN";
    });
    client.on("error", () => {
      ended ||= "reset";
    });
    const closed = new Promise((resolve) => client.once("close", resolve));
    await until(() => expect(text).toMatch(/\r\n\r\nhello$/));
    client.write(Buffer.alloc(32 << 20));
    let left = -1;
    await until(() => {
      const before = left;
      left = client.writableLength;
      expect([left > 0, left]).toEqual([true, before]);
    });
    await Promise.all([router.close(), closed]);
    expect(ended).toBe("FIN");
  });
});
