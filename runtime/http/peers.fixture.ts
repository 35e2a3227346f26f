/** For tests only: peers that speak HTTP byte by byte, also wrongly, on real sockets. */
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";

export type RawPeer = {
  readonly port: number;
  readonly url: string;
  /** Everything each connection sent, as latin1 text. */
  readonly seen: string[];
  /** Connections accepted so far. */
  readonly connections: () => number;
  /** Connections open now. */
  readonly open: () => number;
  readonly close: () => Promise<void>;
};

export async function listenPort(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** `answer` is called for every piece of data, with all that this connection has sent so far. */
export async function startRawPeer(
  answer: (socket: Socket, soFar: string, nth: number) => void,
): Promise<RawPeer> {
  const seen: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const nth = seen.push("") - 1;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.on("data", (data) => {
      seen[nth] += data.toString("latin1");
      answer(socket, seen[nth] ?? "", nth);
    });
  });
  const port = await listenPort(server);
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    seen,
    connections: () => seen.length,
    open: () => sockets.size,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers every complete request head without a body with the same bytes. */
export const alwaysAnswer = (text: string) => (socket: Socket, soFar: string) => {
  if (soFar.endsWith("\r\n\r\n")) socket.write(text, "latin1");
};

export type RawAnswer = {
  readonly text: string;
  /** How the connection ended: by a FIN, or by a reset. */
  readonly ended: "end" | "reset";
};

/** Sends bytes and reads until the connection is closed; ask for `Connection: close`. */
export function rawExchange(port: number, text: string): Promise<RawAnswer> {
  return new Promise((resolve) => {
    let got = "";
    let ended: RawAnswer["ended"] = "end";
    const socket = connect(port, "127.0.0.1", () => socket.write(text, "latin1"));
    socket.on("data", (data) => {
      got += data.toString("latin1");
    });
    socket.on("error", () => {
      ended = "reset";
    });
    socket.on("close", () => resolve({ text: got, ended }));
  });
}
