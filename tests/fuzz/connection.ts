/** A client's connection: sends its bytes in pieces, gathers what comes back, and knows when it is over. */
import { connect } from "node:net";

export type Got = {
  /** All that came, as latin1. */
  readonly text: () => string;
  readonly isOver: () => boolean;
  readonly send: (text: string) => void;
  /** No more bytes from here. */
  readonly finish: () => void;
  readonly drop: () => void;
  /** Resolves when `ready` says so, or when the connection is over; false: neither in time. */
  readonly until: (ready: (text: string) => boolean) => Promise<boolean>;
};

/** Far above what a busy machine needs: what takes longer hangs. */
const hangMs = 30_000;

export function openConnection(port: number): Got {
  let text = "";
  let over = false;
  let wake = () => {};
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("data", (data) => {
    text += data.toString("latin1");
    wake();
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    over = true;
    wake();
  });
  return {
    text: () => text,
    isOver: () => over,
    send: (piece) => void socket.write(piece, "latin1"),
    finish: () => void socket.end(),
    drop: () => void socket.destroy(),
    until: (ready) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => settle(false), hangMs);
        const settle = (well: boolean) => {
          clearTimeout(timer);
          wake = () => {};
          resolve(well);
        };
        wake = () => {
          if (over || ready(text)) settle(true);
        };
        wake();
      }),
  };
}
