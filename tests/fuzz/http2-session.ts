/** A client's session of HTTP/2 in bytes: sends frames, and gathers what comes for each stream. */
import { connect } from "node:net";
import { flags, frame, preface, types, word } from "../../router/listen/frame-bytes.fixture.ts";

export type Heard = { body: string; heads: number; over: boolean; reset: boolean };
export type Session = {
  readonly send: (bytes: Buffer) => void;
  readonly of: (stream: number) => Heard;
  readonly streams: () => ReadonlyMap<number, Heard>;
  readonly isOver: () => boolean;
  /** Resolves when `ready` says so, or when the session is over; false: neither in time. */
  readonly until: (ready: () => boolean) => Promise<boolean>;
  readonly drop: () => Promise<void>;
};

/** Far above what a busy machine needs: what takes longer hangs. */
const hangMs = 30_000;

export function openSession(port: number, windowZero: boolean): Session {
  const streams = new Map<number, Heard>();
  let over = false;
  let rest: Buffer = Buffer.alloc(0);
  let wake = () => {};
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const of = (stream: number): Heard => {
    const known = streams.get(stream);
    if (known !== undefined) return known;
    const fresh = { body: "", heads: 0, over: false, reset: false };
    streams.set(stream, fresh);
    return fresh;
  };
  const hear = (type: number, flag: number, stream: number, payload: Buffer) => {
    if (type === types.settings && flag === 0) socket.write(frame(types.settings, flags.ack, 0));
    if (type === types.goaway && payload.readUInt32BE(4) !== 0) over = true;
    if (stream === 0) return;
    note(of(stream), type, flag, payload);
  };
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      over = true;
      wake();
      resolve();
    });
  });
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const size = rest.readUIntBE(0, 3);
      hear(rest[3] ?? 0, rest[4] ?? 0, rest.readUInt32BE(5), rest.subarray(9, 9 + size));
      rest = rest.subarray(9 + size);
    }
    wake();
  });
  socket.write(preface);
  if (windowZero) socket.write(initialWindow(0));
  return {
    send: (bytes) => void socket.write(bytes),
    of,
    streams: () => streams,
    isOver: () => over,
    until: (ready) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => settle(false), hangMs);
        const settle = (well: boolean) => {
          clearTimeout(timer);
          wake = () => {};
          resolve(well);
        };
        wake = () => {
          if (over || ready()) settle(true);
        };
        wake();
      }),
    drop: () => {
      socket.destroy();
      return closed;
    },
  };
}

function note(heard: Heard, type: number, flag: number, payload: Buffer): void {
  if (type === types.data) heard.body += payload.toString("latin1");
  if (type === types.headers) heard.heads += 1;
  if (type === types.rst) heard.reset = true;
  const ends = type === types.data || type === types.headers;
  if (type === types.rst || (ends && (flag & flags.endStream) > 0)) heard.over = true;
}

/** SETTINGS_INITIAL_WINDOW_SIZE. */
export const initialWindow = (bytes: number): Buffer =>
  frame(types.settings, 0, 0, Buffer.concat([Buffer.from([0, 4]), word(bytes)]));
