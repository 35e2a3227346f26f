import { describe, test } from "vitest";
import { isProvedDead, looksLikeServer } from "./proof-of-death.ts";
import type { Unit, UnitState } from "./unit.ts";

const unit = (state: UnitState, settled = true): Unit => ({
  name: "cell-01-app",
  status: () => ({ name: "cell-01-app", state, pid: null, restarts: 0, text: "" }),
  isSettled: () => settled,
  start: async () => {},
  stop: async () => {},
  kill: async () => {},
});
const nowhere = "/nowhere/cellfleet";
const cell = (program: Unit, database: Unit) =>
  isProvedDead({
    programs: [program],
    notes: nowhere,
    database: { unit: database, name: "cell-01-db", folder: nowhere },
  });

describe("the proof that a cell is dead", () => {
  test("takes every unit, and nothing that is being started or ended", ({ expect }) => {
    expect(cell(unit("dead"), unit("stopped"))).toBe(true);
    expect(cell(unit("running"), unit("dead"))).toBe(false);
    expect(cell(unit("dead"), unit("running"))).toBe(false);
    expect(cell(unit("dead", false), unit("dead"))).toBe(false);
    expect(cell(unit("dead"), unit("dead", false))).toBe(false);
  });

  test("knows a server's processes by their command lines", ({ expect }) => {
    const looks = (command: string) => looksLikeServer(command, "cell-01-db", "/data/cell-01");
    expect(looks("/bin/postgres -D /data/cell-01")).toBe(true);
    expect(looks("postgres: cell-01-db: app app__sb_cell_02_cell_01 127.0.0.1(5) COMMIT")).toBe(
      true,
    );
    expect(looks("/bin/postgres -D /data/cell-011")).toBe(false);
    expect(looks("postgres: cell-02-db: checkpointer ")).toBe(false);
  });
});
