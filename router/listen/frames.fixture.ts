/** For tests only: what a server says to frames of HTTP/2, byte by byte. */
import { connect } from "node:net";
import { vi } from "vitest";
import { flags, frame, preface, types } from "./frame-bytes.fixture.ts";

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
      { timeout: 25_000, interval: 5 },
    );
  } finally {
    socket.destroy();
  }
  const { resets, answers } = heard;
  return { over: isOver(), goaway: goaway(), resets, answers };
}
