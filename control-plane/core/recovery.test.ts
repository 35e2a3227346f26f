/** Of each key one owner at the most, at an epoch nobody has seen, and nothing taken from the silent. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ownershipStates } from "../../contract/cell-protocol.ts";
import { placementStates } from "../../contract/control-api.ts";
import {
  type Claim,
  decideKey,
  evidenceOfRestore,
  type KeyFacts,
  planRecovery,
  type RecoveryView,
  recoverySteps,
  recoveryTransitions,
} from "./recovery.ts";

const cells: readonly string[] = ["cell-01", "cell-02", "cell-03", "cell-04"];

const facts: fc.Arbitrary<KeyFacts> = fc
  .record({
    silent: fc.subarray([...cells]),
    known: fc.option(
      fc.record({
        cell: fc.constantFrom(...cells),
        epoch: fc.integer({ min: 1, max: 5 }),
        state: fc.constantFrom(...placementStates),
        deleted: fc.boolean(),
      }),
      { nil: undefined },
    ),
    claims: fc.uniqueArray(
      fc.record({
        cell: fc.constantFrom(...cells),
        state: fc.constantFrom(...ownershipStates),
        epoch: fc.integer({ min: 1, max: 5 }),
      }),
      { selector: ({ cell }) => cell },
    ),
    epochFloor: fc.integer({ min: 0, max: 9 }),
    doubted: fc.subarray([...cells]),
  })
  .map(({ silent, claims, doubted, ...rest }) => ({
    ...rest,
    mayHaveHeir: ({ cell }: Claim) => doubted.includes(cell),
    claims: claims.filter(({ cell }) => !silent.includes(cell)),
    hasReported: (cell: string) => !silent.includes(cell),
  }));

const mayWrite = ({ state }: Claim) =>
  state === "active" || state === "fenced" || state === "importing";

const holds = (rule: (one: KeyFacts) => boolean): void => {
  const run = fc.check(fc.property(facts, rule), { numRuns: 2000 });
  expect(run.counterexample).toBeNull();
  expect(run.numRuns).toBe(2000);
};

describe("what becomes of one key", () => {
  test("every cell that might write is the owner or was told that it is not", () => {
    holds((one) => {
      const { outcome, losers } = decideKey(one);
      // Of a placement that is unavailable its own cell is told so by that, before its next lease.
      const owner = outcome.kind === "ignore" || outcome.kind === "gone" ? undefined : outcome.cell;
      const left = one.claims.filter(mayWrite).filter(({ cell }) => !losers.includes(cell));
      return left.every(({ cell }) => cell === owner);
    });
  });

  test("an owner gets an epoch above all that was seen, unless all agree already", () => {
    holds((one) => {
      const seen = Math.max(one.known?.epoch ?? 0, ...one.claims.map(({ epoch }) => epoch));
      const { outcome, losers, loserEpoch } = decideKey(one);
      if (losers.length > 0 && loserEpoch <= seen) return false;
      if (outcome.kind === "own") return outcome.epoch > Math.max(seen, one.epochFloor);
      if (outcome.kind !== "keep") return true;
      return (
        losers.length === 0 &&
        one.known?.cell === outcome.cell &&
        one.known.epoch === outcome.epoch &&
        seen === outcome.epoch
      );
    });
  });

  test("no epoch falls below the one the database has", () => {
    holds((one) => {
      const { outcome } = decideKey(one);
      return outcome.kind === "ignore" || outcome.epoch >= (one.known?.epoch ?? 0);
    });
  });

  test("what a silent cell owns is given to nobody who has not seen a higher epoch", () => {
    holds((one) => {
      const { known } = one;
      if (known === undefined || known.deleted || one.hasReported(known.cell)) return true;
      const { outcome } = decideKey(one);
      const above = one.claims.some(({ epoch }) => epoch > known.epoch);
      return above || (outcome.kind === "unavailable" && outcome.cell === known.cell);
    });
  });

  test("nothing goes back to a claimant while somebody who could be its heir is silent", () => {
    holds((one) => {
      const { outcome } = decideKey(one);
      const isGiven = outcome.kind === "keep" || outcome.kind === "own";
      const claim = one.claims.find(({ cell }) => isGiven && cell === outcome.cell);
      const owns = claim?.state === "active" || claim?.state === "fenced";
      return !(claim !== undefined && owns && one.mayHaveHeir(claim));
    });
  });

  test("the highest epoch wins, whatever the database says", () => {
    const decision = decideKey({
      known: { cell: "cell-01", epoch: 1, state: "active", deleted: false },
      claims: [
        { cell: "cell-01", state: "active", epoch: 1 },
        { cell: "cell-02", state: "active", epoch: 2 },
      ],
      hasReported: () => true,
      mayHaveHeir: () => false,
      epochFloor: 2,
    });
    expect(decision).toEqual({
      outcome: { kind: "own", cell: "cell-02", epoch: 3 },
      losers: ["cell-01"],
      loserEpoch: 3,
    });
  });

  test("a tenant that was deleted after the backup stays deleted, one that never arrived is placed", () => {
    const known = { cell: "cell-01", epoch: 1, state: "active", deleted: false } as const;
    const base = { known, hasReported: () => true, mayHaveHeir: () => false, epochFloor: 0 };
    expect(
      decideKey({ ...base, claims: [{ cell: "cell-01", state: "dropped", epoch: 1 }] }).outcome
        .kind,
    ).toBe("gone");
    expect(decideKey({ ...base, claims: [] }).outcome).toEqual({
      kind: "own",
      cell: "cell-01",
      epoch: 2,
    });
  });

  test("a key that moved to a cell nobody knows is unavailable, not given back", () => {
    const { outcome } = decideKey({
      known: { cell: "cell-01", epoch: 1, state: "active", deleted: false },
      claims: [{ cell: "cell-01", state: "moved", epoch: 2 }],
      hasReported: () => true,
      mayHaveHeir: () => false,
      epochFloor: 2,
    });
    expect(outcome).toEqual({ kind: "unavailable", cell: "cell-01", epoch: 2 });
  });
});

describe("the steps", () => {
  test("read as this table", () => {
    const lines = recoverySteps.map(
      (step) =>
        `${step}: ${Object.entries(recoveryTransitions[step])
          .map(([event, to]) => `${event} -> ${to}`)
          .join(", ")}`,
    );
    expect(lines).toEqual([
      "none: evidence -> collecting",
      "collecting: evidence -> collecting, all-reported -> fencing",
      "fencing: evidence -> collecting, all-fenced -> none",
    ]);
  });

  const view: RecoveryView = {
    step: "collecting",
    cells: [
      { cell: "cell-01", state: "reported", appliedRevision: 5, fenced: 0 },
      { cell: "cell-02", state: "awaited", appliedRevision: 5, fenced: 0 },
    ],
    fenceRevision: 0,
    sinceMs: 0,
    nowMs: 999,
    freezeAfterMs: 1000,
  };

  test("nothing is fenced before every cell has spoken, or can hold no lease any more", () => {
    expect(planRecovery(view)).toMatchObject({ kind: "wait", cells: ["cell-02"] });
    expect(planRecovery({ ...view, nowMs: 1000 })).toMatchObject({
      kind: "freeze",
      cells: ["cell-02"],
    });
  });

  test("nothing is granted before every loser has obeyed; a frozen one cannot", () => {
    const fencing: RecoveryView = {
      ...view,
      step: "fencing",
      fenceRevision: 10,
      cells: [{ cell: "cell-01", state: "reported", appliedRevision: 9, fenced: 3 }],
    };
    expect(planRecovery(fencing)).toMatchObject({ kind: "wait", cells: ["cell-01"] });
    const done = [{ cell: "cell-01", state: "reported", appliedRevision: 10, fenced: 3 }] as const;
    expect(planRecovery({ ...fencing, cells: done }).kind).toBe("merge");
  });
});

test("only what is above our own numbers is evidence", () => {
  const known = { revision: 10, epoch: 3, grant: 7 };
  expect(evidenceOfRestore("cell cell-01", known, known)).toBeUndefined();
  expect(evidenceOfRestore("cell cell-01", { ...known, epoch: 4 }, known)).toContain("epoch 4");
  expect(evidenceOfRestore("cell cell-01", { ...known, grant: 8 }, known)).toContain("grant 8");
  expect(evidenceOfRestore("router r", { ...known, revision: 11 }, known)).toContain("revision 11");
});
