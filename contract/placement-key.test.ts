import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultKeyspace, parseTenantId } from "./ids.ts";
import {
  compareBytes,
  parsePlacementKey,
  placementKeySchema,
  rangeKey,
  slotCountMax,
  slotKey,
  slotOf,
  tenantKey,
} from "./placement-key.ts";

const acme = parseTenantId("acme");
if (acme === undefined) throw new Error("acme is a tenant id");

describe("the text of a key", () => {
  test("names keyspace, kind and value, and reads back to the same", () => {
    expect(tenantKey(defaultKeyspace, acme)).toBe("default/tenant/acme");
    expect(parsePlacementKey("default/tenant/acme")).toEqual({
      keyspace: "default",
      kind: "tenant",
      tenant: "acme",
    });
    expect(parsePlacementKey(slotKey(defaultKeyspace, 77))).toEqual({
      keyspace: "default",
      kind: "slot",
      slot: 77,
    });
    expect(parsePlacementKey(rangeKey(defaultKeyspace, ""))).toEqual({
      keyspace: "default",
      kind: "range",
      from: "",
    });
  });

  test.each([
    "",
    "default",
    "default/tenant",
    "default/tenant/",
    "default/tenant/a/b",
    "Default/tenant/acme",
    "default/slot/016",
    "default/slot/-1",
    `default/slot/${slotCountMax}`,
    "default/slot/1e3",
    "default/range/a b",
    "default/table/acme",
  ])("%j is none", (raw) => {
    expect(parsePlacementKey(raw)).toBeUndefined();
    expect(placementKeySchema.safeParse(raw).success).toBe(false);
  });
});

describe("slots", () => {
  /** As a row filter in PostgreSQL computes it: `get_byte(…,0)*256 + get_byte(…,1)`, masked. */
  function slowSlot(tenant: string, slotCount: number): number {
    const hex = createHash("md5").update(tenant).digest("hex");
    const bytes = [Number.parseInt(hex.slice(0, 2), 16), Number.parseInt(hex.slice(2, 4), 16)];
    return ((bytes[0] ?? 0) * 256 + (bytes[1] ?? 0)) % slotCount;
  }

  test("are those that PostgreSQL computes, for every power of two", () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 0, max: 14 }), (tenant, power) => {
        const slotCount = 2 ** power;
        expect(slotOf(tenant, slotCount)).toBe(slowSlot(tenant, slotCount));
      }),
    );
  });

  test("do not change from release to release", () => {
    expect(["acme", "globex", "user-1"].map((tenant) => slotOf(tenant, slotCountMax))).toEqual(
      ["acme", "globex", "user-1"].map((tenant) => slowSlot(tenant, slotCountMax)),
    );
    expect(slotOf("acme", 16)).toMatchInlineSnapshot(`12`);
  });
});

test('ranges are ordered by bytes, as COLLATE "C" does, not by a language\'s rules', () => {
  expect(["b", "a", "B", "é", "Z", ""].sort(compareBytes)).toEqual(["", "B", "Z", "a", "b", "é"]);
  // Beyond the basic plane, JavaScript's own order differs from that of the bytes.
  expect(compareBytes("\u{ffff}", "\u{10000}")).toBeLessThan(0);
});
