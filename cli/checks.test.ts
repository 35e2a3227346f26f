/** What `cellctl check` makes of cells: an adopted one that nothing of ours guards yet is well. */
import { describe, test } from "vitest";
import { checkCells, checkLeases } from "./checks.ts";
import { sampleCell } from "./samples.fixture.ts";

const ill = { health: "down", healthReason: "no agent has reported", agents: [] };
const noLease = { lease: { grant: 0, outstandingMs: 0 } };
const adopted = sampleCell("shop", { ...ill, ...noLease, provider: "none", stage: "pass-through" });

describe("cells that are checked", () => {
  test("need neither agent nor lease in stage pass-through", async ({ expect }) => {
    for (const check of [checkCells([adopted]), checkLeases([adopted])]) {
      expect(check).toMatchObject({ state: "ok", fix: null });
      expect(check.text).toContain("pass-through: nothing of ours runs there");
    }
  });

  test("are judged by the others beside such a one", async ({ expect }) => {
    const down = sampleCell("cell-02", { ...ill, ...noLease });
    expect(checkCells([adopted, down])).toMatchObject({
      state: "failed",
      text: "cell-02 is down (no agent has reported)",
      fix: "cellctl cell start cell-02",
    });
    expect(checkLeases([adopted, down])).toMatchObject({
      state: "failed",
      text: "without a lease, so they may not serve: cell-02",
    });
    expect(checkCells([adopted, sampleCell("cell-03")])).toMatchObject({
      state: "ok",
      text: "1 cell, all healthy; shop is in pass-through: nothing of ours runs there",
    });
  });

  test("are not sent to `cell start` where nobody but the user can start them", async ({
    expect,
  }) => {
    const { fix } = checkCells([sampleCell("own-01", { ...ill, provider: "none" })]);
    expect(fix).toContain("own-01");
    expect(fix).not.toContain("cell start");
  });
});
