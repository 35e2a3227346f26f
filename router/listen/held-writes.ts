/**
 * What somebody else writes to a socket is kept back until it is known whether it may be written at all:
 * http-proxy writes a cell's answer in the turn in which it comes, and the answer may have to be
 * confirmed once more first.
 *
 * What must always be true: nothing of it leaves before `release`; a writer that heeds what `write`
 * says adds no more than one piece, so that what is kept is bounded.
 */
import type { Socket } from "node:net";

export type HeldWrites = {
  /** In order, and the end behind it if that was written too. */
  readonly release: () => void;
  readonly drop: () => void;
};

type Write = readonly [chunk: string | Uint8Array, encoding: BufferEncoding | undefined];

export function holdWrites(socket: Socket): HeldWrites {
  const writes: Write[] = [];
  let ended = false;
  socket.write = (chunk: string | Uint8Array, encoding?: unknown) => {
    writes.push([chunk, typeof encoding === "string" ? (encoding as BufferEncoding) : undefined]);
    return false;
  };
  socket.end = () => {
    ended = true;
    return socket;
  };
  const drop = () => {
    // What was set here stood in front of the socket's own.
    Reflect.deleteProperty(socket, "write");
    Reflect.deleteProperty(socket, "end");
  };
  return {
    drop,
    release: () => {
      drop();
      for (const [chunk, encoding] of writes) socket.write(chunk, encoding);
      if (ended) socket.end();
      // Who was told to wait goes on.
      else socket.emit("drain");
    },
  };
}
