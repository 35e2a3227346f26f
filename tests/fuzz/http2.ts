/**
 * One session of HTTP/2 from its first byte to its last, and what must be true of it: a cell sees exactly
 * what a sound stream asked for, once; every answer is its own stream's; nothing hangs; what was not
 * broken is served on.
 */
import { block, flags, frame, types, word } from "../../router/listen/frame-bytes.fixture.ts";
import { askedOf } from "./http2-expected.ts";
import type { Http2Plan, Noise, StreamPlan } from "./http2-grammar.ts";
import { initialWindow, openSession } from "./http2-session.ts";
import type { World } from "./world.ts";

const padded = 8;
const prioritised = 32;

/** Returns how many answers of cells came. */
export async function speakHttp2(
  { h2cPort, ledger }: World,
  plan: Http2Plan,
  name: string,
  find: (what: string) => void,
): Promise<number> {
  const session = openSession(h2cPort, plan.windowZero);
  const said = [...plan.streams, probe].map((one, nth) => {
    const stream = withMark(one, `m${name}-${nth}z`);
    return { stream, id: 2 * nth + 1, asked: askedOf(stream) };
  });
  const told = (what: string) =>
    find(
      `${what}\n  sent: ${JSON.stringify(plan)}\n  came: ${JSON.stringify([...session.streams()])}`,
    );
  const entries = said.map(({ asked }) =>
    asked === undefined ? [] : ledger.add({ asked: [asked], whole: true }),
  );
  for (const { stream, id } of said) session.send(bytesOf(stream, id));
  if (plan.windowZero) session.send(initialWindow(65_535));
  const due = said.filter(({ stream }) => !stream.reset && stream.trailers !== "open");
  const well = await session.until(() => due.every(({ id }) => session.of(id).over));
  if (!well) told("hangs");
  await session.drop();
  let answered = 0;
  for (const { id, asked } of said) {
    const { body, reset, heads, over } = session.of(id);
    const own = asked !== undefined && !asked.head && body === asked.key;
    if (own) answered += 1;
    // A refusal is JSON of the router's; what is neither is somebody else's, or a part of something.
    else if (over && body !== "" && !reset && !isRefusal(body)) {
      told(`stream ${id} has the answer of another`);
    }
    if (heads > 2) told(`stream ${id} was answered more than once`);
  }
  for (const one of entries) ledger.retire(one);
  return answered;
}

const isRefusal = (body: string): boolean => body.startsWith('{"error"');

const probe: StreamPlan = {
  fields: [
    [":method", "GET"],
    [":scheme", "http"],
    [":authority", "acme.cells.test"],
    [":path", "/@M@"],
    ["x-mark", "@M@"],
  ],
  ...{ body: "", cuts: [], continuations: 0, padded: false, prioritised: false },
  ...{ trailers: "none", reset: false, noise: undefined },
};

const withMark = (stream: StreamPlan, mark: string): StreamPlan => ({
  ...stream,
  fields: stream.fields.map(([name, value]) => [name, value.replaceAll("@M@", mark)] as const),
  body: stream.body.replaceAll("@M@", mark),
});

function bytesOf(stream: StreamPlan, id: number): Buffer {
  const { body, trailers, reset, noise } = stream;
  const pieces = cut(body, stream.cuts);
  const isBodiless = pieces.length === 0 && trailers === "none";
  const frames = headOf(stream, id, isBodiless);
  for (const [nth, piece] of pieces.entries()) {
    const isLast = nth === pieces.length - 1 && trailers === "none";
    frames.push(frame(types.data, isLast ? flags.endStream : 0, id, Buffer.from(piece, "latin1")));
  }
  if (trailers !== "none") {
    const flag = flags.endHeaders | (trailers === "open" ? 0 : flags.endStream);
    const name = trailers === "pseudo" ? ":path" : "x-sum";
    frames.push(frame(types.headers, flag, id, block([[name, "/1"]])));
  }
  if (noise !== undefined) frames.push(noises[noise](id));
  if (reset) frames.push(frame(types.rst, 0, id, word(8)));
  return Buffer.concat(frames);
}

function cut(body: string, cuts: readonly number[]): string[] {
  const pieces: string[] = [];
  let at = 0;
  for (const size of cuts) {
    pieces.push(body.slice(at, at + size));
    at += size;
  }
  if (at < body.length) pieces.push(body.slice(at));
  return pieces;
}

function headOf(stream: StreamPlan, id: number, isEnd: boolean): Buffer[] {
  const all = block(stream.fields);
  const size = Math.ceil(all.length / (stream.continuations + 1));
  const parts = Array.from({ length: stream.continuations + 1 }, (_, nth) =>
    all.subarray(nth * size, (nth + 1) * size),
  );
  return parts.map((part, nth) => {
    const end = nth === parts.length - 1 ? flags.endHeaders : 0;
    if (nth > 0) return frame(types.continuation, end, id, part);
    return frame(types.headers, end | flagsOf(stream, isEnd), id, dressed(stream, part));
  });
}

const flagsOf = (stream: StreamPlan, isEnd: boolean): number =>
  (isEnd ? flags.endStream : 0) |
  (stream.padded ? padded : 0) |
  (stream.prioritised ? prioritised : 0);

const padding = 3;
const dressed = (stream: StreamPlan, part: Buffer): Buffer =>
  Buffer.concat([
    stream.padded ? Buffer.from([padding]) : Buffer.alloc(0),
    stream.prioritised ? Buffer.concat([word(0), Buffer.from([15])]) : Buffer.alloc(0),
    part,
    Buffer.alloc(stream.padded ? padding : 0),
  ]);

const eight = Buffer.alloc(8, 1);
const noises: Readonly<Record<Noise, (id: number) => Buffer>> = {
  ping: () => frame(types.ping, 0, 0, eight),
  settings: () => initialWindow(60_000),
  window: () => frame(types.window, 0, 0, word(1000)),
  "window-zero": () => frame(types.window, 0, 0, word(0)),
  "window-too-large": () => frame(types.window, 0, 0, word(2 ** 31 - 1)),
  "stream-window-zero": (id) => frame(types.window, 0, id, word(0)),
  priority: (id) => frame(types.priority, 0, id + 40, Buffer.concat([word(id), Buffer.from([1])])),
  "priority-of-itself": (id) =>
    frame(types.priority, 0, id, Buffer.concat([word(id), Buffer.from([1])])),
  unknown: (id) => frame(0xfa, 0xff, id, eight),
  continuation: (id) => frame(types.continuation, flags.endHeaders, id, Buffer.alloc(0)),
  push: (id) => frame(types.push, flags.endHeaders, id, word(2)),
  goaway: () => frame(types.goaway, 0, 0, Buffer.concat([word(0), word(0)])),
  "data-after-end": (id) => frame(types.data, 0, id, eight),
  "even-stream": (id) =>
    frame(types.headers, flags.endHeaders | flags.endStream, id + 1, block(probe.fields)),
  "old-stream": (id) =>
    frame(types.headers, flags.endHeaders | flags.endStream, id, block(probe.fields)),
  "too-long": (id) => frame(types.data, 0, id, Buffer.alloc(20_000)),
  "reset-idle": (id) => frame(types.rst, 0, id + 60, word(8)),
};
