/** For tests only: frames of HTTP/2 as bytes, right and wrong ones, and what a server says to them. */
import { connect } from "node:net";
import { vi } from "vitest";

export const types = {
  data: 0,
  headers: 1,
  priority: 2,
  rst: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const;
export const flags = { endStream: 1, ack: 1, endHeaders: 4 } as const;

export function frame(
  type: number,
  flag: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flag, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** An integer of HPACK behind a prefix of seven bits. */
const length = (size: number): Buffer => {
  if (size < 127) return Buffer.from([size]);
  const bytes = [127];
  let rest = size - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
};
const text = (value: string): Buffer =>
  Buffer.concat([length(value.length), Buffer.from(value, "latin1")]);

export type Fields = ReadonlyArray<readonly [string, string]>;
/** Literals that no table remembers. */
export const block = (fields: Fields): Buffer =>
  Buffer.concat(
    fields.map(([name, value]) => Buffer.concat([Buffer.from([0]), text(name), text(value)])),
  );

export const pseudo = (method = "GET"): Fields => [
  [":method", method],
  [":scheme", "http"],
  [":authority", "acme.test"],
  [":path", "/"],
];

/** A whole head in one frame. */
export const head = (stream: number, fields: Fields, endStream = true): Buffer =>
  frame(types.headers, flags.endHeaders + (endStream ? flags.endStream : 0), stream, block(fields));

export const preface = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frame(types.settings, 0, 0),
]);

export type Said = {
  /** `over`: the connection or session ended. */
  readonly over: boolean;
  readonly goaway: number | undefined;
  readonly resets: readonly number[];
  /** Heads of answers. */
  readonly answers: number;
};

const marker = Buffer.from("are you?");

type Heard = { over: boolean; alive: boolean; resets: number[]; answers: number };

/** What came, frame by frame. */
function createListener(acknowledge: () => void) {
  const heard: Heard = { over: false, alive: false, resets: [], answers: 0 };
  let goaway: number | undefined;
  let rest = Buffer.alloc(0);
  const hear = (type: number, flag: number, payload: Buffer) => {
    if (type === types.headers) heard.answers += 1;
    if (type === types.rst) heard.resets.push(payload.readUInt32BE(0));
    if (type === types.goaway) goaway = payload.readUInt32BE(4);
    if (type === types.ping && flag === flags.ack) heard.alive ||= payload.equals(marker);
    if (type === types.settings && flag === 0) acknowledge();
  };
  return {
    heard,
    goaway: () => goaway,
    data: (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
        const size = rest.readUIntBE(0, 3);
        hear(rest[3] ?? 0, rest[4] ?? 0, rest.subarray(9, 9 + size));
        rest = rest.subarray(9 + size);
      }
    },
  };
}

/** What a server says to these bytes, after a preface; `streams` of them want a word each. */
export async function sayTo(
  port: number,
  bytes: readonly Buffer[],
  streams: number,
): Promise<Said> {
  const socket = connect(port, "127.0.0.1");
  const { heard, goaway, data } = createListener(() =>
    socket.write(frame(types.settings, flags.ack, 0)),
  );
  socket.on("error", () => {});
  socket.once("close", () => {
    heard.over = true;
  });
  socket.on("data", data);
  socket.write(Buffer.concat([preface, ...bytes, frame(types.ping, 0, 0, marker)]));
  const isOver = () => heard.over || goaway() !== undefined;
  try {
    await vi.waitFor(
      () => {
        const isHeard = heard.resets.length + heard.answers >= streams;
        if (!isOver() && !(heard.alive && isHeard)) throw new Error("waiting");
      },
      { timeout: 8000, interval: 5 },
    );
  } finally {
    socket.destroy();
  }
  const { resets, answers } = heard;
  return { over: isOver(), goaway: goaway(), resets, answers };
}
