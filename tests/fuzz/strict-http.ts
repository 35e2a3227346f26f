/**
 * A second opinion on HTTP/1: reads messages by the letter of RFC 9112 and stops at the first byte that it
 * does not understand. It says what a client has asked for, and what an upstream was sent; it shares no
 * code with the router. Texts are latin1: one character, one byte.
 */

export type Field = readonly [name: string, value: string];

export type Message = {
  readonly kind: "message";
  readonly start: string;
  readonly fields: readonly Field[];
  readonly body: string;
  /** Position behind it. */
  readonly end: number;
};
export type Stop = { readonly kind: "partial" } | { readonly kind: "broken"; readonly why: string };

const partial: Stop = { kind: "partial" };
const broken = (why: string): Stop => ({ kind: "broken", why });

const namePattern = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
// Tab, visible characters and bytes above ASCII; DEL and other controls are none.
const valuePattern = /^[\t\x20-\x7e\x80-\xff]*$/;

export const valuesOf = (fields: readonly Field[], wanted: string): string[] =>
  fields.filter(([name]) => name === wanted).map(([, value]) => value);

type Head = { readonly start: string; readonly fields: Field[]; readonly end: number };

function readHead(text: string, from: number): Head | Stop {
  const end = text.indexOf("\r\n\r\n", from);
  if (end === -1) return partial;
  const [start = "", ...lines] = text.slice(from, end).split("\r\n");
  const fields: Field[] = [];
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, "");
    if (colon < 1 || !namePattern.test(name)) return broken(`field ${JSON.stringify(line)}`);
    if (!valuePattern.test(value)) return broken(`value of ${name}`);
    fields.push([name.toLowerCase(), value]);
  }
  return { start, fields, end: end + 4 };
}

/** A body without a length of its own: none for a request, up to the end for a response. */
export type Unframed = "none" | "to-the-end";

function readBody(text: string, { start, fields, end }: Head, unframed: Unframed): Message | Stop {
  const message = (body: string, behind: number): Message => {
    return { kind: "message", start, fields, body, end: behind };
  };
  const codings = valuesOf(fields, "transfer-encoding");
  const lengths = valuesOf(fields, "content-length");
  if (codings.length > 0) {
    if (lengths.length > 0) return broken("both framings");
    if (codings.length > 1 || codings[0]?.toLowerCase() !== "chunked") return broken("coding");
    const chunks = readChunks(text, end);
    return "kind" in chunks ? chunks : message(chunks.body, chunks.end);
  }
  if (lengths.length > 1) return broken("two lengths");
  const [length] = lengths;
  if (length === undefined && unframed === "to-the-end")
    return message(text.slice(end), text.length);
  if (length !== undefined && !/^\d{1,15}$/.test(length)) return broken("length");
  const behind = end + Number(length ?? 0);
  return behind > text.length ? partial : message(text.slice(end, behind), behind);
}

function readChunks(
  text: string,
  from: number,
): { readonly body: string; readonly end: number } | Stop {
  const pieces: string[] = [];
  let at = from;
  for (;;) {
    const eol = text.indexOf("\r\n", at);
    if (eol === -1) return partial;
    const line = text.slice(at, eol);
    // An extension is a list of names with values, of which nothing matters but that no line ends in it.
    const [, hex] =
      /^([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?[ \t]*$/.exec(line) ?? [];
    if (hex === undefined) return broken(`chunk ${JSON.stringify(line.slice(0, 40))}`);
    const size = Number.parseInt(hex, 16);
    at = eol + 2;
    if (size === 0) break;
    if (text.length < at + size + 2) return partial;
    if (text.slice(at + size, at + size + 2) !== "\r\n") return broken("end of a chunk");
    pieces.push(text.slice(at, at + size));
    at += size + 2;
  }
  const trailers = text.startsWith("\r\n", at) ? { end: at + 2 } : readTrailers(text, at);
  return "kind" in trailers ? trailers : { body: pieces.join(""), end: trailers.end };
}

function readTrailers(text: string, at: number): { readonly end: number } | Stop {
  const section = readHead(`x\r\n${text.slice(at)}`, 0);
  return "kind" in section ? section : { end: at + section.end - 3 };
}

export function readRequest(text: string, from: number): Message | Stop {
  const head = readHead(text, from);
  if ("kind" in head) return head;
  return readBody(text, head, "none");
}

/** `bodiless`: an answer to HEAD. */
export function readResponse(text: string, from: number, bodiless: boolean): Message | Stop {
  const head = readHead(text, from);
  if ("kind" in head) return head;
  const status = statusOf(head.start);
  if (status === undefined) return broken(`status line ${JSON.stringify(head.start.slice(0, 40))}`);
  if (bodiless || status < 200 || status === 204 || status === 304) {
    return { kind: "message", start: head.start, fields: head.fields, body: "", end: head.end };
  }
  return readBody(text, head, "to-the-end");
}

export function statusOf(start: string): number | undefined {
  const match = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(start);
  return match === null ? undefined : Number(match[1]);
}
