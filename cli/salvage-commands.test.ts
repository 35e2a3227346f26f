/** `cellctl cell salvage CELL show` against a small real HTTP server: what is asked for and printed. */
import { describe, expect, test, vi } from "vitest";
import { against } from "./move.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const id = "op_0m5abcdefghij";
const found = (more: object) => ({
  ...{ id, cell: "cell-01", failover: id, state: "done", headline: "read", rows: 0, open: 0 },
  ...{ tenants: [], createdAt: "2026-06-01T12:00:00.000Z", cellState: "quarantined", ...more },
});
const showing = (more: object, options = "") =>
  against(
    { "GET /v1/cells/cell-01/salvage": () => ({ body: found(more) }) },
    `cell salvage cell-01 show${options}`,
  );

describe("show", () => {
  const conflict = { tenant: "acme", rows: 3, free: 0, same: 1, conflict: 2, homeless: 0, open: 2 };
  const left = { tenant: "acme", table: "public.orders", kind: "insert", verdict: "conflict" };

  test("says why rows were left, of the tenant that is named", async () => {
    const note = "the home has another row";
    const more = { rows: 3, open: 2, tenants: [conflict], left: [{ ...left, note, rows: 2 }] };
    const { code, stdout, asked } = await showing(more, " --tenant acme");
    expect(code).toBe(0);
    expect(asked.map(({ query }) => query)).toEqual([{ tenant: "acme" }]);
    expect(stdout).toContain(
      "acme  public.orders  2 inserts in conflict: the home has another row",
    );
  });

  test("leads to the wipe while the cell is quarantined, and home when it was wiped", async () => {
    const before = await showing({});
    expect(before.stderr).toContain("Next: cellctl cell wipe cell-01");
    const after = await showing({ cellState: "active" });
    expect(after.stderr).toContain("Next: cellctl failover restore cell-01");
    expect(after.stderr).not.toContain("wipe");
  });
});
