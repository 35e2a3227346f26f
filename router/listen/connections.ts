/**
 * Who may connect: so many in all, and so many from one peer. Shared by all listeners of a process.
 *
 * A peer is an address; of IPv6 the first 64 bits, because whoever has one address there has them all.
 * Trusted proxies, and what runs on this machine, stand for many clients and are not counted by peer.
 */
import type { EventEmitter } from "node:events";
import { isIP, type Socket } from "node:net";

export const connectionRefusals = ["total", "peer"] as const;
export type ConnectionRefusal = (typeof connectionRefusals)[number];

export type Connections = {
  /** Takes the connection, or ends it and says so. */
  readonly admit: (socket: Socket) => boolean;
  readonly open: () => number;
};

export function createConnections(options: {
  readonly totalMax: number;
  readonly perPeerMax: number;
  readonly isTrusted: (peer: string) => boolean;
  readonly onRefused: (reason: ConnectionRefusal) => void;
}): Connections {
  const byPeer = new Map<string, number>();
  let open = 0;
  const refuse = (socket: Socket, reason: ConnectionRefusal): false => {
    options.onRefused(reason);
    socket.on("error", () => {});
    socket.destroy();
    return false;
  };
  return {
    open: () => open,
    admit: (socket) => {
      if (open >= options.totalMax) return refuse(socket, "total");
      const address = socket.remoteAddress ?? "";
      const peer = options.isTrusted(plainAddress(address)) ? undefined : peerOf(address);
      const ofPeer = peer === undefined ? 0 : (byPeer.get(peer) ?? 0);
      if (ofPeer >= options.perPeerMax) return refuse(socket, "peer");
      open += 1;
      if (peer !== undefined) byPeer.set(peer, ofPeer + 1);
      socket.once("close", () => {
        open -= 1;
        if (peer === undefined) return;
        const left = (byPeer.get(peer) ?? 1) - 1;
        if (left === 0) byPeer.delete(peer);
        else byPeer.set(peer, left);
      });
      return true;
    },
  };
}

/**
 * Puts the admission in front of whatever the server does with a connection. Returns the raw sockets
 * that are open, whatever has become of them since: HTTP/1, a session of HTTP/2, a tunnel.
 */
export function guardConnections(server: EventEmitter, connections: Connections): Set<Socket> {
  const open = new Set<Socket>();
  const accept = server.listeners("connection");
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    if (!connections.admit(socket)) return;
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    for (const one of accept) one.call(server, socket);
  });
  return open;
}

/** A process of this machine: a proxy or a tunnel, as a rule, which stands for many clients. */
export const isLoopback = (peer: string): boolean => peer === "::1" || peer.startsWith("127.");

/** An IPv4 client of a dual-stack listener as what it is. */
const plainAddress = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/, "");

export function peerOf(address: string): string {
  const plain = plainAddress(address);
  if (isIP(plain) !== 6) return plain;
  const [left = "", right] = plain.replace(/%.*$/, "").split("::");
  const head = left === "" ? [] : left.split(":");
  const tail = right === undefined || right === "" ? [] : right.split(":");
  const zeros = right === undefined ? 0 : 8 - head.length - tail.length;
  return [...head, ...Array<string>(zeros).fill("0"), ...tail].slice(0, 4).join(":");
}
