/**
 * The hash chain of the audit log, without a database: each entry's hash covers the previous hash
 * and the entry's canonical JSON, so an entry cannot be changed, removed or put in between without
 * every later hash changing too.
 */
import { createHash } from "node:crypto";
import { isoTime } from "../../runtime/clock.ts";

export type AuditBody = {
  readonly id: number;
  readonly atMs: number;
  readonly actor: string;
  readonly role: string;
  readonly action: string;
  readonly object: string;
  readonly reason: string;
  readonly outcome: string;
  readonly before: unknown;
  readonly after: unknown;
};

export type ChainedEntry = AuditBody & { readonly prev: string; readonly hash: string };

/** What the first entry follows. */
export const chainStart = "";

/** Keys in order of UTF-16 units, no white space: the same text before and after `jsonb`. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value ?? null);
}

export function entryHash(prev: string, body: AuditBody): string {
  const { atMs, ...rest } = body;
  return createHash("sha256")
    .update(`${prev}\n${canonicalJson({ ...rest, at: isoTime(atMs) })}`, "utf8")
    .digest("hex");
}

export type ChainCursor = {
  readonly entries: number;
  readonly head: string;
  readonly brokenAt: number | null;
};
export const chainCursor: ChainCursor = { entries: 0, head: chainStart, brokenAt: null };

/** One more entry: ids have no gap, the link is right, the hash is right. The first break stays. */
export function followChain(cursor: ChainCursor, entry: ChainedEntry): ChainCursor {
  if (cursor.brokenAt !== null) return { ...cursor, entries: cursor.entries + 1 };
  const { prev, hash, ...body } = entry;
  const whole =
    entry.id === cursor.entries + 1 && prev === cursor.head && hash === entryHash(prev, body);
  return {
    entries: cursor.entries + 1,
    head: whole ? hash : cursor.head,
    brokenAt: whole ? null : entry.id,
  };
}

const textMax = 1000;

/**
 * Text that PostgreSQL can keep and a terminal can show: what a hostile client sent is recorded, but
 * without NUL, control characters, lone surrogates or megabytes.
 */
export function recordable(raw: string): string {
  const cut = raw.length > textMax ? `${raw.slice(0, textMax)}…` : raw;
  return (
    cut
      .toWellFormed()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed.
      .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "\ufffd")
  );
}

/** The same for structured values; what JSON cannot say (undefined, functions) is dropped. */
export function recordableJson(value: unknown): unknown {
  const text = JSON.stringify(value ?? null, (_name, member: unknown) =>
    typeof member === "string" ? recordable(member) : member,
  );
  return JSON.parse(text);
}
