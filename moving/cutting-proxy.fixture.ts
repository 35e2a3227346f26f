/**
 * Between a test and a PostgreSQL: carries everything, until it is told to cut. What was sent before the cut
 * reaches the server, which goes on with it as if its client had died: nobody hears what came of it.
 */
import { connect, createServer, type Socket } from "node:net";
import { listenUrl } from "../cell/agent/fake-control.fixture.ts";

export type CuttingProxy = {
  /** The same login, through here. */
  readonly through: (url: string) => string;
  /** Carries `sends` more pieces that clients send, on all connections together, and cuts with the next. */
  readonly cutAfter: (sends: number) => void;
  /** True since the last `cutAfter`, if it came so far. */
  readonly hasCut: () => boolean;
  readonly close: () => Promise<void>;
};

export async function startCuttingProxy(port: number): Promise<CuttingProxy> {
  let left = Number.POSITIVE_INFINITY;
  let cut = false;
  const open = new Set<readonly [Socket, Socket]>();
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    const pair = [client, upstream] as const;
    open.add(pair);
    client.setNoDelay(true);
    upstream.setNoDelay(true);
    for (const socket of pair) {
      socket.on("error", () => {}); // The other one is closed with it.
      socket.on("close", () => {
        open.delete(pair);
        client.destroy();
        upstream.end();
      });
    }
    client.on("data", (piece) => {
      upstream.write(piece);
      left -= 1;
      if (left >= 0) return;
      left = Number.POSITIVE_INFINITY;
      cut = true;
      for (const [one] of open) one.destroy();
    });
    upstream.pipe(client, { end: false });
  });
  const { port: own } = new URL(await listenUrl(server));
  return {
    through: (url) => {
      const changed = new URL(url);
      changed.port = own;
      return String(changed);
    },
    cutAfter: (sends) => {
      left = sends;
      cut = false;
    },
    hasCut: () => cut,
    close: async () => {
      for (const [client] of open) client.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
