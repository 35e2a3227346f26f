/** Who counts as manual, for as long as it might give itself leases. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type LeaseMode, type LeaseModeWord, leaseModes } from "../../contract/lease-mode.ts";
import {
  countsAsManual,
  grantedMs,
  hearLeaseMode,
  type LeaseModeView,
  timedView,
  wantLeaseMode,
} from "./lease-mode.ts";

const view = (mode: LeaseMode, number: number, acked: number): LeaseModeView => ({
  ...{ mode, number, acked },
});

test.each([
  ["was never told anything", timedView, false],
  ["is to be manual, and has not heard it", view("manual", 1, 0), true],
  ["is manual", view("manual", 1, 1), true],
  ["is to be timed, and has not acknowledged it", view("timed", 2, 1), true],
  ["is timed again", view("timed", 2, 2), false],
  ["was forgotten by a restored control plane", view("timed", 0, -1), true],
])("a cell that %s counts as manual: %s", (_, known, manual) => {
  expect(countsAsManual(known)).toBe(manual);
  expect(grantedMs(known, 1_200_000)).toBe(manual ? 10_000 : 1_200_000);
});

test("what a database knows by a later number is believed", () => {
  const restored = view("timed", 0, -1);
  const after = hearLeaseMode(restored, { mode: "manual", number: 3 });
  expect(after).toEqual(view("manual", 3, 3));
});

test("one number that means two things is given a new one", () => {
  const after = hearLeaseMode(view("timed", 2, 1), { mode: "manual", number: 2 });
  expect(after).toEqual(view("timed", 3, 2));
  expect(countsAsManual(after)).toBe(true);
});

type World = {
  known: LeaseModeView;
  saved: LeaseModeView;
  database: LeaseModeWord;
  /** Words of the control plane that is there, late and in any order; the database takes only later ones. */
  sent: LeaseModeWord[];
};
type Step = { readonly mode: LeaseMode; readonly late: number };

const send = (world: World): unknown =>
  world.sent.push({ mode: world.known.mode, number: world.known.number });

const does: Readonly<Record<string, (world: World, step: Step) => void>> = {
  want: (world, { mode }) => {
    world.known = wantLeaseMode(world.known, mode) ?? world.known;
    send(world);
  },
  tell: (world, { late }) => {
    const word = world.sent.at(-1 - late);
    if (word !== undefined && word.number > world.database.number) world.database = word;
  },
  report: (world) => {
    world.known = hearLeaseMode(world.known, world.database);
    send(world);
  },
  save: (world) => {
    world.saved = world.known;
  },
  restore: (world) => {
    world.known = { ...world.saved, acked: -1 };
    world.sent = [];
  },
};

test("no cell whose database would give itself leases counts as timed", () => {
  const step = fc.record({
    kind: fc.constantFrom(...Object.keys(does)),
    mode: fc.constantFrom(...leaseModes),
    late: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const database: LeaseModeWord = { mode: "timed", number: 0 };
      const world: World = { known: timedView, saved: timedView, database, sent: [] };
      for (const one of steps) {
        does[one.kind]?.(world, one);
        const gives = world.database.mode === "manual";
        expect(gives && !countsAsManual(world.known), one.kind).toBe(false);
      }
    }),
    { numRuns: 3000 },
  );
});
