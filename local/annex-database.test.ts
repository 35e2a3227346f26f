import { describe, test } from "vitest";
import { type CellId, parseCellId } from "../contract/ids.ts";
import { must } from "../runtime/assert.ts";
import { annexDatabaseName } from "./annex-database.ts";

const id = (text: string): CellId => must(parseCellId(text), "a cell id");

describe("the name of an annex's database", () => {
  test("says whose it is, as PostgreSQL keeps it", ({ expect }) => {
    expect(annexDatabaseName("app", id("sb-cell-01-cell-02"))).toBe("app__sb_cell_01_cell_02");
    expect(annexDatabaseName("app_orders", id("sb-cell-01-cell-02-2"))).toBe(
      "app_orders__sb_cell_01_cell_02_2",
    );
  });

  test("fits into 63 bytes, and stays different where it is cut", ({ expect }) => {
    const store = "ü".repeat(30);
    const names = ["sb-cell-01-cell-02", "sb-cell-01-cell-03"].flatMap((annex) => [
      annexDatabaseName(store, id(annex)),
      annexDatabaseName(`${store}x`, id(annex)),
    ]);
    expect(new Set(names).size).toBe(4);
    for (const name of names) {
      expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63);
      expect(name).not.toContain("\uFFFD");
    }
  });

  test("of the longest that are not cut is kept whole", ({ expect }) => {
    const annex = id("sb-0123456789abcdef");
    const whole = `${"a".repeat(63 - 2 - annex.length)}__sb_0123456789abcdef`;
    expect(annexDatabaseName("a".repeat(63 - 2 - annex.length), annex)).toBe(whole);
  });
});
