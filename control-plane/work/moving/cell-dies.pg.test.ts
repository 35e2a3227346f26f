/** A cell's database dies while a tenant moves: before the commit the source keeps it, after it the target gets it. */
import { afterEach, beforeEach, expect, test } from "vitest";
import type { MoveStep } from "../../../contract/move-api.ts";
import { type CellStore, openClient } from "../../../tests/cell-store.ts";
import { eventually } from "../../control.fixture.ts";
import { type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

let fixture: MovingFixture;
beforeEach(async () => {
  fixture = await startMovingFixture({ apart: true });
});
afterEach(async () => {
  await fixture?.close();
});

type Death = readonly [cell: "a" | "b", step: MoveStep, end: string];
const deaths: readonly Death[] = [
  ["a", "copying", "failed: cell-a 1 active"],
  ["a", "draining", "failed: cell-a 1 active"],
  ["b", "catching-up", "failed: cell-a 1 active"],
  ["b", "activating", "done: cell-b 2 active"],
  ["a", "reversing", "done: cell-b 2 active"],
];

test.each(deaths)("cell-%s dies before %s has its effect: %s", async (name, step, end) => {
  const { cells } = fixture;
  const dying = cells[name];
  const tenant = await fixture.createTenant();
  const rows = await cells.rowsOf(cells.a, tenant);
  let isDead = false;
  const executor = await fixture.lead({
    onBoundary: async (at) => {
      if (at.step !== step || at.when !== "before" || isDead) return;
      isDead = true;
      await cells.serverOf(dying).halt("immediate");
    },
  });
  const id = await fixture.begin([tenant], { switchTriesMax: 1, pauseBudgetMs: 5000 });
  await fixture.until(id, () => isDead);
  const isAfter = end.startsWith("done");
  // After the commit it is tried until the cell is back; before it nobody waits for that.
  if (isAfter) {
    await eventually(
      async () => executor.lines,
      (lines) => lines.filter((line) => line.includes("CELL_DATABASE_UNREACHABLE")).length > 2,
    );
  } else await fixture.untilOver(id);
  await cells.serverOf(dying).restart("fast");
  const over = await fixture.untilOver(id);
  expect(`${over.step}: ${await fixture.placed(tenant)}`).toBe(end);
  await eventually(
    () => fixture.recorded(id),
    (left) => left === 0,
  );
  expect(await fixture.leftovers()).toEqual([]);
  const [owner, other] = isAfter ? [cells.b, cells.a] : [cells.a, cells.b];
  const again = async (store: CellStore) => ({
    ...store,
    admin: await openClient(cells.serverOf(store).url(store.name)),
  });
  const [here, there] = [await again(owner), await again(other)];
  expect(await cells.rowsOf(here, tenant)).toEqual(rows);
  expect(await cells.countOf(there, tenant)).toBe(0);
  await Promise.all([here.admin.end(), there.admin.end()]);
});
