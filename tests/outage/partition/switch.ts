/**
 * Through here go all connections that the processes of a fleet open. Each has a name on one end and a port on
 * the other, so a link can be cut in one direction or in both while all others live on.
 *
 * A cut direction is frozen, not closed: what was sent waits here, and arrives when the link is healed, as
 * with a network that loses packets and a sender that repeats them. Who gives up meanwhile is not heard
 * either. Streams between PostgreSQL servers do not pass here: those are frozen by stopping their senders.
 */
import { connect, createServer, type Socket } from "node:net";
import { listenUrl } from "../../../cell/agent/fake-control.fixture.ts";

export type Cut = {
  readonly from: (name: string) => boolean;
  readonly to: (port: number) => boolean;
  /** What the one who opened it sends; what it is answered. */
  readonly forward: boolean;
  readonly backward: boolean;
};

export type Switch = {
  readonly port: number;
  readonly cut: (...cuts: readonly Cut[]) => void;
  readonly heal: () => void;
  /** Who has connections to where now, as `NAME PORT`. */
  readonly links: () => ReadonlySet<string>;
  readonly close: () => Promise<void>;
};

type Pump = { readonly review: () => void };
type Link = { readonly name: string; readonly port: number; readonly pumps: readonly Pump[] };

const preambleMax = 200;

export async function startSwitch(): Promise<Switch> {
  let cuts: readonly Cut[] = [];
  const links = new Set<Link>();
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => sockets.delete(socket));
    return socket;
  };

  function join(client: Socket, name: string, port: number, rest: Buffer): void {
    const isCut = (direction: "forward" | "backward") => () =>
      cuts.some((one) => one[direction] && one.from(name) && one.to(port));
    const upstream = keep(connect({ port, host: "127.0.0.1", allowHalfOpen: true }));
    if (rest.length > 0) client.unshift(rest);
    const pumps = [
      startPump(client, upstream, isCut("forward")),
      startPump(upstream, client, isCut("backward")),
    ];
    const link = { name, port, pumps };
    links.add(link);
    client.on("close", () => links.delete(link));
  }

  const server = createServer({ allowHalfOpen: true }, (client) => {
    keep(client);
    client.on("error", () => {}); // Its end is told to the other side by the pump.
    let head = Buffer.alloc(0);
    const onReadable = () => {
      for (let piece = client.read(); piece !== null; piece = client.read()) {
        head = Buffer.concat([head, piece]);
        const end = head.indexOf(10);
        if (end >= 0) {
          client.off("readable", onReadable);
          const [name = "", port] = head.subarray(0, end).toString().split(" ");
          join(client, name, Number(port), head.subarray(end + 1));
          return;
        }
        if (head.length > preambleMax) client.destroy();
      }
    };
    client.on("readable", onReadable);
  });
  const url = new URL(await listenUrl(server));
  const become = (next: readonly Cut[]) => {
    cuts = next;
    for (const { pumps } of links) for (const pump of pumps) pump.review();
  };
  return {
    port: Number(url.port),
    cut: (...more) => become([...cuts, ...more]),
    heal: () => become([]),
    links: () => new Set([...links].map(({ name, port }) => `${name} ${port}`)),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Carries one direction, as long as it is not cut. */
function startPump(from: Socket, to: Socket, isCut: () => boolean): Pump {
  let held: Buffer[] = [];
  let end: "none" | "ended" | "broken" = "none";
  const carry = () => {
    if (isCut()) return;
    for (const piece of held) to.write(piece);
    held = [];
    if (end === "ended") to.end();
    if (end === "broken") to.destroy();
  };
  from.on("data", (piece: Buffer) => {
    held.push(piece);
    carry();
  });
  from.on("end", () => {
    if (end === "none") end = "ended";
    carry();
  });
  from.on("error", () => {
    end = "broken";
    carry();
  });
  from.on("close", () => {
    if (end === "none") end = "broken";
    carry();
  });
  return { review: carry };
}
