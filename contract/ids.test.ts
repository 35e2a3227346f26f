import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  cellIdSchema,
  epochSchema,
  nextEpoch,
  parseCellId,
  parseEpoch,
  parseOpId,
  parseRevision,
  parseTenantId,
  tenantIdSchema,
} from "./ids.ts";

/** Half of them are ids, half are one character away, or anything at all. */
const likelyIds = fc.oneof(
  fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,127}$/),
  fc.stringMatching(/^[A-Za-z0-9._~:@+ %/\\?#-]{1,20}$/),
  fc.string({ unit: "binary", maxLength: 140 }),
);

describe("tenant ids", () => {
  test.each([
    "a",
    "acme",
    "ACME-1",
    "user@example.com",
    "550e8400-e29b-41d4-a716-446655440000",
    "a+b~c:d.e_f",
  ])("%s is one", (id) => {
    expect(parseTenantId(id)).toBe(id);
  });

  test.each([
    ["nothing", ""],
    ["a dot first", ".hidden"],
    ["a dash first", "-rf"],
    ["a slash", "a/b"],
    ["a space", "a b"],
    ["a line end", "acme\n"],
    ["a null byte", "a\0b"],
    ["a quote", "a'b"],
    ["HTML", "<b>"],
    ["a letter that is not ASCII", "ücme"],
    ["a comma, as in a doubled header", "acme, globex"],
    ["a percent sign", "a%2Fb"],
    ["129 characters", "a".repeat(129)],
  ])("%s is none", (_what, raw) => {
    expect(parseTenantId(raw)).toBeUndefined();
    expect(tenantIdSchema.safeParse(raw).success).toBe(false);
  });

  test("128 characters are the limit", () => {
    expect(parseTenantId("a".repeat(128))).toBe("a".repeat(128));
  });

  test("whatever is one can stand in a header, a path and a key as it is", () => {
    fc.assert(
      fc.property(likelyIds, (raw) => {
        const id = parseTenantId(raw);
        if (id !== undefined) expect(new URL(`http://x/${id}`).pathname).toBe(`/${id}`);
        expect(id === undefined || id === raw).toBe(true);
      }),
    );
  });
});

describe("names of cells", () => {
  test.each(["a", "cell-01", "0", "a".repeat(40)])("%s is one", (name) => {
    expect(parseCellId(name)).toBe(name);
  });
  test.each(["", "Cell", "-a", "a-", "a_b", "a.b", "a".repeat(41)])("%j is none", (name) => {
    expect(parseCellId(name)).toBeUndefined();
    expect(cellIdSchema.safeParse(name).success).toBe(false);
  });
});

describe("numbers", () => {
  test("epochs begin at 1, revisions at 0, both are whole and exact", () => {
    expect([0, 1, 1.5, -1, 2 ** 53, Number.NaN].map(parseEpoch)).toEqual([
      undefined,
      1,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect([-1, 0, 1].map(parseRevision)).toEqual([undefined, 0, 1]);
  });

  test("an epoch only grows", () => {
    const epoch = epochSchema.parse(7);
    expect(nextEpoch(epoch)).toBe(8);
  });

  test("a schema says the rule, not only no", () => {
    const issue = cellIdSchema.safeParse("Cell").error?.issues[0];
    expect(issue?.message).toContain("lower-case letters");
  });

  test("an operation id has its prefix", () => {
    expect(parseOpId("op_0123456789abc")).toBe("op_0123456789abc");
    expect(parseOpId("0123456789abc")).toBeUndefined();
  });
});
