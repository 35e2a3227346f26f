/**
 * The control plane's database is restored from an older state (corrections A5): one key, three cells, moves
 * since the backup, cells that nobody reaches for a while. What becomes of the key is decided by the real
 * `decideKey`, whether it is a restore by the real `evidenceOfRestore`, and the steps are the real table's.
 */
import {
  decideKey,
  evidenceOfRestore,
  nextRecoveryStep,
  type RecoveryEvent,
} from "../control-plane/core/recovery.ts";
import { mayHaveHeir } from "../control-plane/core/recovery-heirs.ts";
import { must } from "../runtime/assert.ts";
import type { Model, Step } from "./explore.ts";
import {
  at,
  type Cell,
  type Decision,
  type Has,
  type Placement,
  type RestoreBug,
  type RestoreSizes,
  type State,
  to,
} from "./restore-state.ts";

const name = (cell: number): string => `cell-${cell}`;
const numberOf = (cell: string): number => Number(cell.slice("cell-".length));

export function restore(sizes: RestoreSizes, bug?: RestoreBug): Model<State> {
  const has: Has = (one) => one === bug;
  const known: Placement = { cell: 0, epoch: 1, unavailable: false };
  const empty: Cell = {
    ...{ state: "none", epoch: 0, data: 0, lease: true },
    ...{ reachable: true, reported: false, frozen: false, leased: false },
  };
  return {
    initial: {
      ...{ known, backup: { ...known }, floor: 0, restored: false, step: "none", decision: null },
      cells: [{ ...empty, state: "active", epoch: 1, data: 1 }, { ...empty }, { ...empty }],
      ...{ changes: 0, losses: 0 },
    },
    next: (state) => [
      ...ordinary(state, sizes),
      ...restored(state, has),
      ...evidence(state, has),
      ...recovering(state, sizes, has),
      ...leases(state, has),
      ...reaching(state, sizes),
    ],
    broken: faultOf,
    brokenStep: (before, after) =>
      after.cells.some(({ epoch }, n) => epoch < at(before, n).epoch) ? "an epoch fell" : undefined,
    isServed: ({ step, known: { cell, epoch, unavailable }, cells }) => {
      const owner = cells[cell];
      const serves = owner?.state === "active" && owner.epoch === epoch && owner.lease;
      return step === "none" && !unavailable && serves === true;
    },
  };
}

function faultOf({ cells, known, step }: State): string | undefined {
  const active = cells.filter(({ state }) => state === "active");
  if (active.filter(({ lease }) => lease).length > 1) return "two cells serve the key";
  if (new Set(active.map(({ epoch }) => epoch)).size < active.length) {
    return "one epoch belongs to two cells";
  }
  const owner = cells[known.cell];
  const isGiven = step === "none" && !known.unavailable && owner?.epoch === known.epoch;
  const newest = Math.max(...cells.map(({ data }) => data));
  return isGiven && owner.state === "active" && owner.lease && owner.data < newest
    ? "the key was given to a cell that lacks what another has acknowledged"
    : undefined;
}

/** Moves, takeovers of cells that hold no lease, backups. */
function ordinary(state: State, sizes: RestoreSizes): Step<State>[] {
  const { known, step, changes } = state;
  if (state.restored || step !== "none" || changes >= sizes.changesMax) return [];
  const owner = at(state, known.cell);
  const steps = [0, 1, 2].flatMap((target) => {
    if (target === known.cell || !at(state, target).reachable) return [];
    if (owner.reachable) return [to(state, `a move to cell ${target}`, (s) => give(s, target))];
    const mayTake = sizes.takeovers && !owner.lease;
    return mayTake ? [to(state, `a takeover by cell ${target}`, (s) => give(s, target))] : [];
  });
  return [
    ...steps,
    to(state, "a backup is made", (s) => {
      s.backup = { ...s.known };
    }),
  ];
}

function give(state: State, cell: number): void {
  const before = at(state, state.known.cell);
  // Who is not reached goes on believing that it owns the key; without a lease that is no harm yet.
  if (before.reachable) before.state = "moved";
  state.changes += 1;
  const epoch = state.known.epoch + 1;
  state.known = { cell, epoch, unavailable: false };
  Object.assign(at(state, cell), { state: "active", epoch, data: epoch });
}

function restored(state: State, has: Has): Step<State>[] {
  if (state.restored) return [];
  return [
    to(state, "the control plane is restored from the backup", (s) => {
      s.known = { ...s.backup };
      s.restored = true;
      // It knows its own former life by system identifier, timeline and database: recovery begins at once.
      if (!has("no-evidence") && !has("waits-for-evidence")) advance(s, "evidence");
    }),
  ];
}

function advance(state: State, event: RecoveryEvent): void {
  const isAgain = state.step !== "none";
  state.step = must(nextRecoveryStep(state.step, event), `${state.step} knows ${event}`);
  if (event !== "evidence") return;
  state.decision = null;
  for (const cell of state.cells) {
    Object.assign(cell, { reported: false, frozen: false, leased: isAgain && cell.leased });
  }
}

/** Why recovery begins because of this cell, as soon as it calls. */
function reasonOf({ cells, known, floor }: State, n: number, has: Has): string | undefined {
  const one = must(cells[n], "a cell");
  if (has("no-evidence")) return undefined;
  if (one.frozen) return `${name(n)} was frozen`;
  const zero = { revision: 0, grant: 0 };
  const ours = { ...zero, epoch: Math.max(known.epoch, floor) };
  return evidenceOfRestore(name(n), { ...zero, epoch: one.epoch }, ours);
}

function evidence(state: State, has: Has): Step<State>[] {
  if (state.step !== "none") return [];
  return state.cells.flatMap((one, n) =>
    one.reachable && reasonOf(state, n, has) !== undefined
      ? [
          to(state, `cell ${n} calls, and that is evidence`, (s) => {
            s.floor = Math.max(s.floor, at(s, n).epoch);
            advance(s, "evidence");
          }),
        ]
      : [],
  );
}

function recovering(state: State, sizes: RestoreSizes, has: Has): Step<State>[] {
  const { step, cells, decision } = state;
  if (step === "collecting") return collecting(state, sizes, has);
  if (step !== "fencing" || decision === null) return [];
  const left = decision.losers.filter((n) => cells[n]?.state === "active");
  const steps = left.flatMap((n) =>
    at(state, n).reachable
      ? [
          to(state, `cell ${n} fences what it lost`, (s) => {
            const epoch = Math.max(at(s, n).epoch, decision.loserEpoch);
            Object.assign(at(s, n), { state: "moved", epoch });
          }),
        ]
      : [],
  );
  if (left.length > 0 && !has("grant-before-fence")) return steps;
  return [
    ...steps,
    to(state, "the placements are rewritten", (s) => {
      advance(s, "all-fenced");
      s.known = decision.placement;
      s.decision = null;
    }),
  ];
}

function collecting(state: State, { freezing }: RestoreSizes, has: Has): Step<State>[] {
  const { cells } = state;
  const steps = cells.flatMap(({ reachable, reported }, n) =>
    reachable && !reported
      ? [
          to(state, `cell ${n} reports`, (s) => {
            at(s, n).reported = true;
            at(s, n).leased ||= at(s, n).lease;
            s.floor = Math.max(s.floor, at(s, n).epoch);
          }),
        ]
      : [],
  );
  // A cell that is gone on without holds no lease any more.
  if (
    !cells.every(({ reported, lease, reachable }) => reported || (freezing && !lease && !reachable))
  )
    return steps;
  return [
    ...steps,
    to(state, "everybody has reported, or is frozen", (s) => {
      for (const one of s.cells) one.frozen = !one.reported;
      s.decision = decide(s, has);
      if (s.decision.losers.length > 0) s.floor = Math.max(s.floor, s.decision.loserEpoch);
      advance(s, "all-reported");
    }),
  ];
}

function decide({ known, cells, floor }: State, has: Has): Decision {
  const claims = cells.flatMap(({ state, epoch, reported }, n) =>
    reported && state !== "none" ? [{ cell: name(n), state, epoch }] : [],
  );
  const { outcome, losers, loserEpoch } = decideKey({
    known: {
      ...{ cell: name(known.cell), epoch: known.epoch, deleted: false },
      state: known.unavailable ? "unavailable" : "active",
    },
    claims,
    hasReported: (cell) => has("silent-is-gone") || cells[numberOf(cell)]?.reported === true,
    mayHaveHeir: (claim) => {
      const isKept = known.unavailable && name(known.cell) === claim.cell;
      const wasKept = isKept && !has("kept-is-forgotten");
      // Each cell keeps a standby of each other one.
      const annexes = cells.map((_, n) => ({
        annex: name(n),
        origin: claim.cell,
        lo: 0,
        hi: 255,
        ordered: false,
      }));
      const named = (is: (one: Cell) => boolean) =>
        new Set(cells.flatMap((one, n) => (is(one) ? [name(n)] : [])));
      const silent = has("silent-is-no-heir") ? new Set<string>() : named(({ frozen }) => frozen);
      return mayHaveHeir(
        {
          silent,
          heard: new Set(),
          steady: new Set(),
          leased: named(({ leased }) => leased),
          annexes,
        },
        claim,
        {
          ...{ claims, bucket: undefined },
          known: wasKept
            ? { ...known, cell: claim.cell, state: "unavailable", deleted: false }
            : undefined,
        },
      );
    },
    epochFloor: has("epoch-not-raised") ? 0 : floor,
  });
  const lost = has("backup-wins") ? [] : losers.map(numberOf);
  if (has("backup-wins")) {
    return { placement: { ...known, epoch: loserEpoch }, losers: lost, loserEpoch };
  }
  if (outcome.kind === "ignore" || outcome.kind === "gone") {
    return { placement: { ...known, unavailable: true }, losers: lost, loserEpoch };
  }
  const raised = outcome.kind === "own" && has("epoch-not-raised") ? known.epoch : outcome.epoch;
  const unavailable = outcome.kind === "unavailable";
  const placement = { cell: numberOf(outcome.cell), epoch: raised, unavailable };
  return { placement, losers: lost, loserEpoch };
}

/** While recovery runs nothing is granted; what a cell presents comes before its lease. */
function leases(state: State, has: Has): Step<State>[] {
  const { known, step } = state;
  const owner = at(state, known.cell);
  const own =
    step === "none" && !known.unavailable && owner.reachable && owner.epoch < known.epoch
      ? [
          to(state, `cell ${known.cell} applies that it owns the key`, (s) => {
            Object.assign(at(s, known.cell), { state: "active", epoch: known.epoch });
          }),
        ]
      : [];
  const steps = state.cells.flatMap((one, n) => {
    if (one.lease) {
      if (one.reachable) return [];
      return [
        to(state, `the lease of cell ${n} ends`, (s) => {
          at(s, n).lease = false;
        }),
      ];
    }
    const claims = one.state === "active" && known.cell !== n;
    const deaf = state.restored && has("grant-before-fence");
    const hears = claims && !known.unavailable && one.epoch < known.epoch && !deaf;
    if (step !== "none" || !one.reachable || reasonOf(state, n, has) !== undefined) return [];
    // A cell that comes back hears with its lease what it has lost.
    return [
      to(
        state,
        `cell ${n} is granted a lease${hears ? ", and hears that the key moved" : ""}`,
        (s) => {
          at(s, n).lease = true;
          if (hears) at(s, n).state = "moved";
        },
      ),
    ];
  });
  return [...own, ...steps];
}

const reaching = (state: State, { lossesMax }: RestoreSizes): Step<State>[] =>
  state.cells.flatMap(({ reachable }, n) =>
    reachable && state.losses >= lossesMax
      ? []
      : [
          to(state, `cell ${n} ${reachable ? "is out of reach" : "is back"}`, (s) => {
            at(s, n).reachable = !reachable;
            if (reachable) s.losses += 1;
          }),
        ],
  );
