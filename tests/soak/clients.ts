/** Clients of a soak. Good ones count every answer that is not theirs; rude ones do what rude ones do. */
import { connect, type Socket } from "node:net";
import { Agent, request } from "undici";
import { WebSocket } from "ws";
import type { SoakCell } from "./cells.ts";

export type Tally = {
  good: number;
  /** While the tenant's cell was away, or had just come back. */
  excused: number;
  rude: number;
  tunnels: number;
  readonly faults: string[];
};

export type Soaking = {
  readonly port: number;
  readonly cells: readonly SoakCell[];
  readonly tally: Tally;
  readonly stopped: () => boolean;
};

/** A failure is the cell's own if it was away at any time since shortly before the request. */
const graceMs = 3000;
const tenants = 200;

const tenantOf = (number: number) => `t-${number % tenants}`;
const cellOf = ({ cells }: Soaking, number: number): SoakCell => {
  const cell = cells[(number % tenants) % cells.length];
  if (cell === undefined) throw new Error("a soak has cells");
  return cell;
};

export const tableOf = (cells: readonly SoakCell[]) => ({
  tenantKey: [{ header: "x-tenant-id" }],
  cells: Object.fromEntries(cells.map(({ id, url }) => [id, { endpoints: [url] }])),
  tenants: Object.fromEntries(
    Array.from({ length: tenants }, (_, at) => [`t-${at}`, cells[at % cells.length]?.id ?? ""]),
  ),
});

/** One keep-alive client that sends one request after the other and believes nothing. */
export async function goodClient(soaking: Soaking, seed: number): Promise<void> {
  const { tally } = soaking;
  const dispatcher = new Agent({ connections: 1, pipelining: 1 });
  for (let at = 0; !soaking.stopped(); at += 1) {
    const number = seed * 7919 + at;
    const cell = cellOf(soaking, number);
    const startedMs = performance.now();
    const problem = await oneRequest(soaking, dispatcher, number, `${seed}-${at}`);
    if (problem === undefined) tally.good += 1;
    else if (wasAway(cell, startedMs)) tally.excused += 1;
    else tally.faults.push(`${cell.id}: ${problem}`);
  }
  await dispatcher.destroy();
}

const wasAway = (cell: SoakCell, startedMs: number): boolean => {
  const since = cell.upSinceMs();
  return since === undefined || since > startedMs - graceMs;
};

async function oneRequest(
  soaking: Soaking,
  dispatcher: Agent,
  number: number,
  mark: string,
): Promise<string | undefined> {
  const tenant = tenantOf(number);
  const posts = number % 5 === 0;
  const body = posts ? Buffer.alloc((number % 7) * 3000, "p") : undefined;
  try {
    const answer = await request(`http://127.0.0.1:${soaking.port}/echo/${mark}`, {
      dispatcher,
      method: posts ? "POST" : "GET",
      headers: { "x-tenant-id": tenant, "x-soak": mark },
      ...(body === undefined ? {} : { body }),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) return `${answer.statusCode} ${text.slice(0, 100)}`;
    const expected = `${cellOf(soaking, number).id} ${tenant} ${body?.length ?? 0}\n`;
    if (text !== expected || answer.headers["x-soak"] !== mark) return `not its answer: ${text}`;
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** What a rude client does on a connection of its own; ends when it is done or the connection is. */
type Rudeness = (socket: Socket, number: number) => Promise<void>;

const head = (number: number, path: string, more: string = "", method: string = "GET") =>
  `${method} ${path} HTTP/1.1\r\nHost: soak.test\r\nx-tenant-id: ${tenantOf(number)}\r\n${more}\r\n`;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export const rudenesses: Readonly<Record<string, Rudeness>> = {
  abort: async (socket, number) => {
    socket.write(head(number, "/big"));
    await pause(number % 40);
    socket.destroy();
  },
  reset: async (socket, number) => {
    socket.write(head(number, "/slow"));
    await pause(20);
    socket.resetAndDestroy();
  },
  "abort upload": async (socket, number) => {
    socket.write(head(number, "/echo/x", "content-length: 1000000\r\n", "POST"));
    socket.write(Buffer.alloc(50_000));
    await pause(number % 50);
    socket.destroy();
  },
  "slow reader": async (socket, number) => {
    socket.pause();
    socket.write(head(number, "/big"));
    await pause(5000);
    socket.destroy();
  },
  slowloris: async (socket, number) => {
    const text = head(number, "/echo/slow");
    for (const letter of text.slice(0, 60)) {
      if (socket.destroyed) return;
      socket.write(letter);
      await pause(300);
    }
    socket.destroy();
  },
  "slow body": async (socket, number) => {
    socket.write(head(number, "/echo/x", "content-length: 5000\r\n", "POST"));
    for (let at = 0; at < 40 && !socket.destroyed; at += 1) {
      socket.write("z");
      await pause(500);
    }
    socket.destroy();
  },
  "half open": async (socket, number) => {
    socket.write(head(number, "/echo/x"));
    socket.end();
    await pause(2000);
    socket.destroy();
  },
  garbage: async (socket, number) => {
    socket.write(`\u0000\u0016${"@".repeat(number % 300)}\r\n\r\n`);
    await pause(100);
    socket.destroy();
  },
  idle: async (socket) => {
    await pause(8000);
    socket.destroy();
  },
};

export async function rudeClient(soaking: Soaking, kind: string, seed: number): Promise<void> {
  const act = rudenesses[kind];
  if (act === undefined) throw new Error(`no rudeness ${kind}`);
  for (let at = 0; !soaking.stopped(); at += 1) {
    const socket = connect(soaking.port, "127.0.0.1");
    socket.on("error", () => {});
    if (kind !== "slow reader") socket.resume();
    await act(socket, seed * 31 + at);
    socket.destroy();
    soaking.tally.rude += 1;
    await pause(5);
  }
}

/** Echoes over a tunnel for a while, then closes it, well or badly. */
export async function tunnelClient(soaking: Soaking, seed: number): Promise<void> {
  for (let at = 0; !soaking.stopped(); at += 1) {
    const number = seed * 13 + at;
    await new Promise<void>((resolve) => {
      const socket = new WebSocket(`ws://127.0.0.1:${soaking.port}/tunnel`, {
        headers: { "x-tenant-id": tenantOf(number) },
      });
      const timer = setTimeout(() => (at % 2 ? socket.terminate() : socket.close()), 1500);
      let echoes = 0;
      socket.on("error", () => {});
      socket.on("open", () => socket.send("hello"));
      socket.on("message", (data) => {
        echoes += 1;
        if (socket.readyState === WebSocket.OPEN) setTimeout(() => socket.send(data, () => {}), 20);
      });
      socket.on("close", () => {
        clearTimeout(timer);
        if (echoes > 0) soaking.tally.tunnels += 1;
        resolve();
      });
    });
    await pause(10);
  }
}
