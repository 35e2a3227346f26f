/** The order of a migration through the fleet. */
import { expect, test } from "vitest";
import { type MigrationTarget, orderRings } from "./apply-order.ts";

const cell = (name: string): MigrationTarget => ({ cell: name, store: "default" });
const standby = (name: string, of: string): MigrationTarget => ({
  cell: name,
  store: "default",
  standbyOf: of,
});
const shown = (targets: readonly MigrationTarget[], canary: string | undefined, ringSize: number) =>
  orderRings(targets, { canary, ringSize }).map(
    (ring) =>
      `${ring.name}: ${ring.chains
        .flat()
        .map((one) => (one.standbyOf === undefined ? one.cell : `${one.cell}(${one.standbyOf})`))
        .join(" ")}`,
  );

test("the canary goes first, the others follow in rings, each in the order of their names", () => {
  const cells = ["c", "a", "d", "b", "e"].map(cell);
  expect(shown(cells, "d", 2)).toEqual(["canary: d", "ring 1: a b", "ring 2: c e"]);
  expect(shown(cells, undefined, 1)).toEqual(
    ["a", "b", "c", "d", "e"].map((name, at) => `ring ${at + 1}: ${name}`),
  );
});

test("a standby goes right before what it stands by for, in the same ring", () => {
  const targets = [cell("a"), cell("b"), standby("a", "b"), standby("b", "a")];
  expect(shown(targets, "b", 5)).toEqual(["canary: a(b) b", "ring 1: b(a) a"]);
});

test("standbys of cells that are not migrated now lead", () => {
  expect(shown([cell("a"), standby("a", "z")], undefined, 1)).toEqual([
    "standbys: a(z)",
    "ring 1: a",
  ]);
});

test("every target stands in exactly one ring, a second store too", () => {
  const targets = [cell("a"), { ...cell("a"), store: "billing" }, cell("b"), standby("b", "a")];
  const all = orderRings(targets, { canary: "b", ringSize: 1 }).flatMap((ring) =>
    ring.chains.flat(),
  );
  expect(all).toHaveLength(targets.length);
  expect(new Set(all)).toEqual(new Set(targets));
});
