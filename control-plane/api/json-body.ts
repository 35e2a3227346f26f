/**
 * A request's JSON body: bounded, UTF-8, and when it is malformed, told where. Every text in it is free
 * of control characters and lone surrogates, so that neither PostgreSQL nor a terminal is surprised.
 */
import { CellError } from "../../contract/errors.ts";

/** Of a JSON body; what is larger has its own streaming door (import). */
export const bodyBytesMax = 1024 * 1024;
/** A refused body is still read up to here, so that the client gets to see the answer. */
const drainBytesMax = 64 * 1024 * 1024;

/** Throws BODY_TOO_LARGE or VALIDATION_FAILED. An absent body is an empty object. */
export async function readJsonBody(request: Request, bytesMax = bodyBytesMax): Promise<unknown> {
  const bytes = await readBytes(request, bytesMax);
  if (bytes.length === 0) return {};
  const text = decode(bytes);
  try {
    return JSON.parse(text);
  } catch {
    const at = jsonErrorPosition(text);
    const lines = text.slice(0, at).split("\n");
    throw new CellError(
      "VALIDATION_FAILED",
      `The body is not JSON: it goes wrong at position ${at} (line ${lines.length}, column ${(lines.at(-1) ?? "").length + 1}).`,
      { details: { position: at } },
    );
  }
}

async function readBytes(request: Request, bytesMax: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes <= bytesMax) chunks.push(chunk);
    if (bytes > drainBytesMax) break;
  }
  if (bytes > bytesMax) {
    throw new CellError("BODY_TOO_LARGE", `The body is larger than ${bytesMax} bytes.`, {
      details: { bodyBytesMax: bytesMax },
      nextSteps: ["Many tenants at once: cellctl tenant import FILE"],
    });
  }
  return Buffer.concat(chunks);
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CellError("VALIDATION_FAILED", "The body is not UTF-8.");
  }
}

const token =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids them inside a string.
  /[ \t\r\n]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null))/y;

type Expect = "value" | "value-or-end" | "key" | "key-or-end" | "colon" | "comma-or-end";
type Move = Expect | "open" | "close" | "comma" | "after-value";

/** What may stand where, and what it leads to; `string` and `scalar` stand for their tokens. */
const values: Readonly<Record<string, Move>> = {
  "{": "open",
  "[": "open",
  string: "after-value",
  scalar: "after-value",
};
const grammar: Readonly<Record<Expect, Readonly<Record<string, Move>>>> = {
  value: values,
  "value-or-end": { ...values, "]": "close" },
  key: { string: "colon" },
  "key-or-end": { string: "colon", "}": "close" },
  colon: { ":": "value" },
  "comma-or-end": { ",": "comma", "]": "close", "}": "close" },
};
const closes: Readonly<Record<string, string>> = { "}": "{", "]": "[" };

/** Where `JSON.parse` stumbles: V8 names a position for some mistakes only. */
export function jsonErrorPosition(text: string): number {
  const nesting: string[] = [];
  let expect: Expect | "nothing" = "value";
  let at = 0;
  while (expect !== "nothing") {
    token.lastIndex = at;
    const match = token.exec(text);
    const next: Expect | "nothing" | undefined =
      match === null ? undefined : follow(expect, match, nesting);
    if (next === undefined) break;
    expect = next;
    at = token.lastIndex;
  }
  return at + (/^[ \t\r\n]*/.exec(text.slice(at))?.[0].length ?? 0);
}

/** The state after this token, or undefined where it may not stand. */
function follow(
  expect: Expect,
  match: RegExpExecArray,
  nesting: string[],
): Expect | "nothing" | undefined {
  const [, mark, string] = match;
  const kind = mark ?? (string === undefined ? "scalar" : "string");
  const move = grammar[expect][kind];
  if (move === "open") {
    nesting.push(kind);
    return kind === "{" ? "key-or-end" : "value-or-end";
  }
  if (move === "close" && nesting.pop() !== closes[kind]) return undefined;
  if (move === "close" || move === "after-value") {
    return nesting.length === 0 ? "nothing" : "comma-or-end";
  }
  if (move === "comma") return nesting.at(-1) === "{" ? "key" : "value";
  return move;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused.
const hostile = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const isHostile = (text: string): boolean => hostile.test(text) || !text.isWellFormed();

const depthMax = 32;

/** The same text on one line: for what people write on several, such as SQL. */
export const onOneLine = (text: string): string => text.replace(/[\t\r\n]/g, " ");

/** Says what is wrong with the first text, key or value, that must not come in; undefined when all is well. */
export function hostileText(value: unknown, path: string, depth = 0): string | undefined {
  if (typeof value === "string") return isHostile(value) ? hostileProblem(path) : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  if (depth === depthMax) return `${path}: is nested deeper than ${depthMax}`;
  for (const [name, member] of Object.entries(value)) {
    if (isHostile(name)) return hostileProblem(path);
    const found = hostileText(member, depth === 0 ? name : `${path}.${name}`, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

const hostileProblem = (path: string): string =>
  `${path}: must not contain control characters or broken Unicode`;
