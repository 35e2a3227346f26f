/** For tests only: frames of HTTP/2 as bytes, right and wrong ones. */

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
