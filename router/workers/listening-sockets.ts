/**
 * Listening sockets for workers. The main thread opens them, so that the ports are known and checked
 * before any worker is there, and gives them away at once: it takes no connection itself.
 */
import { createServer, type Server } from "node:net";
import { MessageChannel, receiveMessageOnPort, type Transferable } from "node:worker_threads";
import { CellError } from "../../contract/errors.ts";
import { type ListenAt, listenOn } from "../../runtime/listen.ts";
import type { RouterConfig } from "../config.ts";
import type { ListenerSockets } from "../listen/open-listeners.ts";
import { type ListenerProtocol, listenerProtocols } from "../listen/server.ts";

export type ListeningSockets = {
  readonly port: (protocol: ListenerProtocol) => number | undefined;
  /** One more set, for one more worker; all sets listen on the same addresses. */
  readonly open: () => Promise<ListenerSockets>;
};

/** Throws CONFIG_INVALID where addresses are taken, or where threads cannot share them. */
export async function prepareSockets(config: RouterConfig): Promise<ListeningSockets> {
  await checkMovable(config.listen.host);
  const addresses = addressesOf(config);
  const ports = new Map<ListenerProtocol, number>();
  for (const [protocol, { host, port }] of addresses) {
    ports.set(protocol, config.reusePort && port !== 0 ? port : await freePort({ host, port }));
  }
  return {
    port: (protocol) => ports.get(protocol),
    open: async () => {
      const sockets: Partial<Record<ListenerProtocol, Server>> = {};
      for (const [protocol, { host }] of addresses) {
        const server = createServer();
        await listenOn(server, { host, port: ports.get(protocol) ?? 0, reusePort: true });
        sockets[protocol] = server;
      }
      return sockets;
    },
  };
}

const addressesOf = (config: RouterConfig): ReadonlyMap<ListenerProtocol, ListenAt> => {
  const { listen: http, h2c, tls } = config;
  const all = { http, h2c, tls } satisfies Record<ListenerProtocol, ListenAt | undefined>;
  return new Map(
    listenerProtocols.flatMap((protocol) => {
      const address = all[protocol];
      return address === undefined ? [] : [[protocol, address] as const];
    }),
  );
};

/** Shared addresses do not collide, so a router that was started twice would go unnoticed: ask first. */
async function freePort(at: ListenAt): Promise<number> {
  const probe = createServer();
  const { port } = await listenOn(probe, at);
  await closed(probe);
  return port;
}

/** A listening socket changes its thread since Node.js 24.21 (and 26.6). */
async function checkMovable(host: string): Promise<void> {
  const probe = createServer();
  await listenOn(probe, { host, port: 0 });
  const { port1, port2 } = new MessageChannel();
  try {
    port1.postMessage(probe, [probe as unknown as Transferable]);
    const moved: unknown = receiveMessageOnPort(port2)?.message;
    if (moved instanceof Object && "close" in moved) await closed(moved as Server);
  } catch (cause) {
    await closed(probe);
    throw new CellError(
      "CONFIG_INVALID",
      `Node.js ${process.versions.node} cannot give a listening socket to a worker thread.`,
      { cause, nextSteps: ["use Node.js 24.21 or newer", "or start the router with --workers 1"] },
    );
  } finally {
    port1.close();
    port2.close();
  }
}

const closed = (server: Server): Promise<void> =>
  new Promise((resolve) => server.close(() => resolve()));
