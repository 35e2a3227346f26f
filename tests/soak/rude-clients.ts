/** Clients that do what rude, broken and hostile ones do. Nothing is expected of their answers. */
import type { ClientHttp2Session } from "node:http2";
import { connect, type Socket } from "node:net";
import { openSession } from "./good-clients.ts";
import { pauseIn, type Soaking, tenantOf } from "./soaking.ts";

type Rude = {
  readonly socket: Socket;
  readonly number: number;
  readonly pause: (ms: number) => Promise<void>;
};

const head = (number: number, path: string, more: string = "", method: string = "GET") =>
  `${method} ${path} HTTP/1.1\r\nHost: soak.test\r\nx-tenant-id: ${tenantOf(number)}\r\n${more}\r\n`;

/** What each does on a connection of its own; it ends when that is done or the connection is. */
const rudenesses: Readonly<Record<string, (rude: Rude) => Promise<void>>> = {
  abort: async ({ socket, number, pause }) => {
    socket.write(head(number, "/big"));
    await pause(number % 40);
  },
  reset: async ({ socket, number, pause }) => {
    socket.write(head(number, "/slow"));
    await pause(20);
    socket.resetAndDestroy();
  },
  "abort upload": async ({ socket, number, pause }) => {
    socket.write(head(number, "/echo/x", "content-length: 1000000\r\n", "POST"));
    socket.write(Buffer.alloc(50_000));
    await pause(number % 50);
  },
  "slow reader": async ({ socket, number, pause }) => {
    socket.pause();
    socket.write(head(number, "/big"));
    await pause(5000);
  },
  slowloris: async ({ socket, number, pause }) => {
    for (const letter of head(number, "/echo/slow").slice(0, 60)) {
      if (socket.destroyed) return;
      socket.write(letter);
      await pause(300);
    }
  },
  "slow body": async ({ socket, number, pause }) => {
    socket.write(head(number, "/echo/x", "content-length: 5000\r\n", "POST"));
    for (let at = 0; at < 40 && !socket.destroyed; at += 1) {
      socket.write("z");
      await pause(500);
    }
  },
  "half open": async ({ socket, number, pause }) => {
    socket.write(head(number, "/echo/x"));
    socket.end();
    await pause(2000);
  },
  "half open tunnel": async ({ socket, number, pause }) => {
    const key = "sec-websocket-version: 13\r\nsec-websocket-key: c29hay1zb2FrLXNvYWstMQ==\r\n";
    socket.write(head(number, "/tunnel", `connection: upgrade\r\nupgrade: websocket\r\n${key}`));
    if (number % 3 === 0) socket.end();
    await pause(number % 400);
  },
  garbage: async ({ socket, number, pause }) => {
    socket.write(`\u0000\u0016${"@".repeat(number % 300)}\r\n\r\n`);
    await pause(100);
  },
  idle: ({ pause }) => pause(8000),
};

/**
 * Some 130 connections a second in all: Node accepts one per turn of its loop, and a router that is short
 * of processor time would have its queue full of those that are gone already.
 */
const betweenMs = 100;

export const rudeKinds: readonly string[] = Object.keys(rudenesses);

export async function rudeClient(soaking: Soaking, kind: string, seed: number): Promise<void> {
  const act = rudenesses[kind];
  if (act === undefined) throw new Error(`no rudeness ${kind}`);
  const pause = (ms: number) => pauseIn(soaking, ms);
  for (let at = 0; !soaking.over.aborted; at += 1) {
    // As the other side sees it: half open until it ends too.
    const socket = connect({ port: soaking.port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => {});
    if (kind !== "slow reader") socket.resume();
    const end = () => socket.destroy();
    soaking.over.addEventListener("abort", end, { once: true });
    await act({ socket, number: seed * 31 + at, pause });
    soaking.over.removeEventListener("abort", end);
    socket.destroy();
    soaking.tally.rude += 1;
    await pause(betweenMs);
  }
}

/** A session's streams: some reset at once, some in the middle of an answer, one never read. */
export async function rudeHttp2Client(soaking: Soaking, seed: number): Promise<void> {
  for (let at = 0; !soaking.over.aborted; at += 1) {
    const session = openSession(soaking);
    for (let one = 0; one < 20 && !session.destroyed; one += 1) {
      resetOne(session, seed * 31 + at + one);
      await pauseIn(soaking, betweenMs / 2);
    }
    if (at % 3 === 0) session.close();
    await pauseIn(soaking, betweenMs);
    session.destroy();
    soaking.tally.rude += 1;
  }
}

function resetOne(session: ClientHttp2Session, number: number): void {
  if (session.closed) return;
  const path = number % 3 === 1 ? "/big" : "/slow";
  const stream = session.request({ ":path": path, "x-tenant-id": tenantOf(number) });
  stream.on("error", () => {});
  if (number % 3 === 0) stream.close(8);
  else if (number % 3 === 1) stream.once("data", () => stream.close(8));
}
