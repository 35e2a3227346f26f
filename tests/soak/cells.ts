/** Cells of a soak: plain servers that stream, echo, upgrade, and now and then go away and come back. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";

export type SoakCell = {
  readonly id: string;
  readonly url: string;
  /** It was up the whole time since then (monotonic ms), or is down. */
  readonly upSinceMs: () => number | undefined;
  readonly restart: (downMs: number) => Promise<void>;
  readonly close: () => Promise<void>;
};

const chunk = Buffer.alloc(64 * 1024, "c");

export async function startCell(id: string): Promise<SoakCell> {
  let server: Server | undefined;
  let upSince: number | undefined;
  let port = 0;
  const open = new Set<Socket>();
  const begin = async () => {
    const fresh = createServer((req, res) => answer(id, req, res));
    const sockets = new WebSocketServer({ noServer: true });
    fresh.on("connection", (socket: Socket) => {
      open.add(socket);
      socket.once("close", () => open.delete(socket));
    });
    fresh.on("upgrade", (req: IncomingMessage, socket: Duplex, head: Buffer) =>
      sockets.handleUpgrade(req, socket, head, (ws) => {
        ws.on("error", () => {});
        ws.on("message", (data) => ws.send(data));
      }),
    );
    fresh.keepAliveTimeout = 65_000;
    await new Promise<void>((resolve, reject) => {
      fresh.once("error", reject);
      fresh.listen(port, "127.0.0.1", resolve);
    });
    port = (fresh.address() as AddressInfo).port;
    server = fresh;
    upSince = performance.now();
  };
  const shut = async () => {
    const dying = server;
    server = undefined;
    upSince = undefined;
    if (dying === undefined) return;
    const closed = new Promise<void>((resolve) => dying.close(() => resolve()));
    // As a crash would, with its tunnels.
    for (const socket of open) socket.destroy();
    await closed;
  };
  await begin();
  return {
    id,
    url: `http://127.0.0.1:${port}`,
    upSinceMs: () => upSince,
    restart: async (downMs) => {
      await shut();
      await new Promise((resolve) => setTimeout(resolve, downMs));
      await begin();
    },
    close: shut,
  };
}

function answer(id: string, req: IncomingMessage, res: ServerResponse): void {
  req.on("error", () => {});
  res.on("error", () => {});
  const { pathname } = new URL(req.url ?? "/", "http://cell");
  if (pathname === "/big") {
    stream(res, 64);
    return;
  }
  if (pathname === "/slow") {
    res.write("one");
    const timer = setTimeout(() => res.end("two"), 1000);
    res.on("close", () => clearTimeout(timer));
    return;
  }
  let bytes = 0;
  req.on("data", (part: Buffer) => {
    bytes += part.length;
  });
  req.on("end", () => {
    res.setHeader("x-soak", String(req.headers["x-soak"] ?? ""));
    res.end(`${id} ${req.headers["x-tenant-id"]} ${bytes}\n`);
  });
}

/** As fast as the reader takes it. */
function stream(res: ServerResponse, chunks: number): void {
  let left = chunks;
  const more = () => {
    while (left > 0 && !res.destroyed) {
      left -= 1;
      if (!res.write(chunk)) {
        res.once("drain", more);
        return;
      }
    }
    res.end();
  };
  more();
}
