/**
 * Pure: what a stream asks for by the letter of RFC 9113 (section 8), and under which key a cell may see it;
 * undefined: nothing of it may be carried. The router may refuse more, never carry more.
 */
import type { Asked } from "./expected.ts";
import { keyOf } from "./expected.ts";
import type { Fields, StreamPlan } from "./http2-grammar.ts";

const namePattern = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const valuePattern = /^(?![ \t])[\t\x20-\x7e\x80-\xff]*(?<![ \t])$/;
const ofConnection = /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade)$/;
const wanted = [":method", ":scheme", ":path", ":authority"];

/** With marks filled in. */
export function askedOf({ fields, body, trailers }: StreamPlan): Asked | undefined {
  const head = readHead(fields);
  if (head === undefined || trailers === "pseudo" || trailers === "open") return undefined;
  const { pseudo, plain } = head;
  const lengths = valuesOf(plain, "content-length");
  if (!plain.every(isSound) || lengths.some((length) => length !== String(body.length))) {
    return undefined;
  }
  const hosts = new Set([...valuesOf(plain, "host"), ...valuesOf(pseudo, ":authority")]);
  const [host] = hosts;
  const [method = ""] = valuesOf(pseudo, ":method");
  const [target = ""] = valuesOf(pseudo, ":path");
  const isLine = /^[A-Za-z]+$/.test(method) && /^\/[\x21-\x7e]*$/.test(target);
  if (!isLine || hosts.size !== 1 || host === undefined) return undefined;
  const message = { kind: "message" as const, start: "", fields: plain, body, end: 0 };
  return {
    key: keyOf(method, target, message),
    cell: host.startsWith("globex.") ? "b" : "a",
    head: method === "HEAD",
    last: false,
  };
}

/** Pseudo fields first, each once, all that are needed. */
function readHead(fields: Fields): { pseudo: Fields; plain: Fields } | undefined {
  const first = fields.findIndex(([name]) => !name.startsWith(":"));
  const pseudo = first === -1 ? fields : fields.slice(0, first);
  const names = new Set(pseudo.map(([name]) => name));
  const isWhole = wanted.slice(0, 3).every((name) => names.has(name));
  const isKnown = pseudo.every(
    ([name, value]) => wanted.includes(name) && valuePattern.test(value),
  );
  const rest = fields.slice(pseudo.length);
  const isLate = rest.some(([name]) => name.startsWith(":"));
  if (!isWhole || !isKnown || isLate || names.size < pseudo.length) return undefined;
  // A field that is none is left out by the protocol library, which goes on without it.
  const plain = rest.filter(([name, value]) => namePattern.test(name) && valuePattern.test(value));
  return { pseudo, plain };
}

const isSound = ([name, value]: readonly [string, string]): boolean =>
  !/[A-Z]/.test(name) && !ofConnection.test(name) && (name !== "te" || value === "trailers");

const valuesOf = (fields: Fields, name: string): string[] =>
  fields.filter(([one]) => one === name).map(([, value]) => value);
