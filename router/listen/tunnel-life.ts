/**
 * What ends a tunnel once it stands, and the two sockets with it: one side goes, nothing moves for too long,
 * it grows too old, the router shuts down.
 *
 * A tunnel that the router ends gets a FIN after the bytes that were taken already, and no close frame
 * of its own: that may stand between two frames only, and where one ends only a parser of the whole stream
 * would know (decision 0048). Clients see 1006 and connect again.
 */
import type { Socket } from "node:net";
import type { Clock, Timer } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";

export const tunnelEnds = [
  /** One side closed or reset its connection. */
  "client",
  "cell",
  /** Nothing moved for too long; it was open for too long. */
  "idle",
  "max-age",
  /** What the cell owns is being taken over by others. */
  "halted",
  /** The router shuts down. */
  "drain",
] as const;
export type TunnelEnd = (typeof tunnelEnds)[number];

export type LifeLimits = {
  /** Longest silence in both directions. */
  readonly idleMs: number;
  /** A tunnel is ended at this age, up to a tenth earlier, so that not all come back at once; 0: never. */
  readonly ageMsMax: number;
};

/** So long the other side may take to close too. */
const lingerMs = 5000;
const ageSpread = 0.1;

export type TunnelLife = {
  readonly end: (why: TunnelEnd) => void;
};

export function startLife(options: {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: LifeLimits;
  readonly client: Socket;
  readonly cell: Socket;
  /** Told once, when the client's socket is closed. */
  readonly onOver: (why: TunnelEnd) => void;
}): TunnelLife {
  const { clock, client, cell, limits } = options;
  const timers = new Set<Timer>();
  const after = (ms: number, act: () => void) => {
    const timer = clock.after(ms, act, { background: true });
    timers.add(timer);
  };
  let reason: TunnelEnd | undefined;
  const leave = (why: TunnelEnd) => {
    if (reason !== undefined) return;
    reason = why;
    after(lingerMs, () => client.destroy());
  };
  const end = (why: TunnelEnd) => {
    if (reason !== undefined) return;
    leave(why);
    cell.unpipe(client);
    client.unpipe(cell);
    client.end();
    cell.end();
    // What still comes is for nobody, and unread it would turn the FIN into a reset.
    client.resume();
    cell.resume();
  };
  for (const event of ["end", "error", "close"]) {
    client.once(event, () => leave("client"));
    cell.once(event, () => leave("cell"));
  }
  cell.once("close", () => client.end());
  client.once("close", () => {
    for (const timer of timers) timer.cancel();
    cell.destroy();
    options.onOver(reason ?? "client");
  });
  watchSilence(client, cell, limits.idleMs, after, () => end("idle"));
  if (limits.ageMsMax > 0) {
    after(limits.ageMsMax * (1 - ageSpread * options.random.unit()), () => end("max-age"));
  }
  return { end };
}

/** Looks now and then whether bytes have moved; cheaper than a timer per byte. */
function watchSilence(
  client: Socket,
  cell: Socket,
  idleMs: number,
  after: (ms: number, act: () => void) => void,
  onSilence: () => void,
): void {
  let moved = -1;
  const look = () => {
    const now = client.bytesRead + cell.bytesRead;
    if (now === moved) onSilence();
    else after(idleMs, look);
    moved = now;
  };
  look();
}

/** Nobody keeps the connection of a refused upgrade: what the client still sends is thrown away. */
export function lingerAfter(socket: Socket, clock: Clock): void {
  if (socket.destroyed) return;
  socket.resume();
  const timer = clock.after(lingerMs, () => socket.destroy(), { background: true });
  socket.once("close", timer.cancel);
}
