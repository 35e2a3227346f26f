import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type AuditBody,
  type ChainedEntry,
  canonicalJson,
  chainCursor,
  chainStart,
  entryHash,
  followChain,
  recordable,
  recordableJson,
} from "./audit-chain.ts";

const body = (id: number, object: string): AuditBody => ({
  id,
  atMs: 1_700_000_000_000 + id,
  actor: "ann",
  role: "operator",
  action: "tenant.create",
  object,
  reason: "",
  outcome: "accepted",
  before: null,
  after: { cell: "cell-01" },
});

function chain(objects: readonly string[]): ChainedEntry[] {
  let prev = chainStart;
  return objects.map((object, index) => {
    const one = body(index + 1, object);
    const entry = { ...one, prev, hash: entryHash(prev, one) };
    prev = entry.hash;
    return entry;
  });
}

const follow = (entries: readonly ChainedEntry[]) => entries.reduce(followChain, chainCursor);

describe("the audit chain", () => {
  test("follows what was written", () => {
    const entries = chain(["a", "b", "c"]);
    expect(follow(entries)).toEqual({ entries: 3, head: entries[2]?.hash, brokenAt: null });
  });

  test("a change of any field of any entry is found at that entry", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4 }),
        fc.constantFrom("actor", "role", "action", "object", "reason", "outcome", "prev", "hash"),
        (at, field) => {
          const entries = chain(["a", "b", "c", "d", "e"]).map((entry, index) =>
            index === at ? { ...entry, [field]: `${entry[field as "actor"]}x` } : entry,
          );
          expect(follow(entries).brokenAt).toBe(at + 1);
        },
      ),
    );
  });

  test("a removed, doubled or swapped entry is found", () => {
    const [a, b, c] = chain(["a", "b", "c"]) as [ChainedEntry, ChainedEntry, ChainedEntry];
    expect(follow([a, c]).brokenAt).toBe(3);
    expect(follow([b, c]).brokenAt).toBe(2);
    expect(follow([a, b, b, c]).brokenAt).toBe(2);
    expect(follow([a, c, b]).brokenAt).toBe(3);
  });

  test("an entry that was rewritten with a hash that fits is found at the next one", () => {
    const entries = chain(["a", "b", "c", "d"]).map((entry) => {
      if (entry.id !== 2) return entry;
      const { prev, hash: _hash, ...rest } = entry;
      const changed = { ...rest, actor: "bob" };
      return { ...changed, prev, hash: entryHash(prev, changed) };
    });
    expect(follow(entries).brokenAt).toBe(3);
  });

  test("canonical JSON does not depend on the order of keys", () => {
    expect(canonicalJson({ b: 1, a: [{ d: 2, c: undefined }] })).toBe('{"a":[{"d":2}],"b":1}');
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
        const reversed = Object.fromEntries(Object.entries(value).reverse());
        expect(canonicalJson(reversed)).toBe(canonicalJson(value));
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });

  test("what is recorded has no control characters, lone surrogates or megabytes", () => {
    expect(recordable("a\u0000b\u001b[31m\ud800")).toBe("a\ufffdb\ufffd[31m\ufffd");
    expect(recordable("x".repeat(10_000_000)).length).toBeLessThan(1100);
    expect(recordableJson({ a: "\u0000", b: undefined, c: ["\n"] })).toEqual({
      a: "\ufffd",
      c: ["\ufffd"],
    });
  });
});
