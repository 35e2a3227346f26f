/**
 * Plans a rebalance: deterministic, explainable, and every move makes the fleet better, so a plan may be
 * cut off after any of them. In order: what breaks a rule or has to leave; then from the fullest cell the
 * unit that relieves it most per byte to the emptiest cell that may take it; then swaps, kept only where
 * strictly better. The greedy loop is Citus' with a cost; thresholds keep it from moving back and forth.
 */
import type { RebalanceAsk, RebalanceMove } from "../../../contract/rebalance-api.ts";
import { counted } from "../counted.ts";
import { Board, bytesOfAMove } from "./board.ts";
import { type Bin, peakBound, subtract, type Unit, weightBy } from "./load.ts";
import { whyNot } from "./may-take.ts";

export type Skip = { readonly object: string; readonly reason: string; readonly text: string };
/** `epoch`, `key` and cells are texts here; the shell gives them their brands. */
export type PlannedMove = Omit<RebalanceMove, "key" | "from" | "to" | "epoch"> & {
  readonly key: string;
  readonly from: string;
  readonly to: string;
  readonly epoch: number;
};
export type Rebalance = {
  readonly moves: readonly PlannedMove[];
  readonly skipped: readonly Skip[];
  readonly cells: ReadonlyArray<{
    readonly cell: string;
    readonly before: number;
    readonly after: number;
  }>;
  readonly peakBefore: number;
  readonly peakAfter: number;
  readonly peakBound: number;
  readonly bytes: number;
  readonly text: string;
};

/** A move must relieve by this share of the threshold, or it is not worth its pause. */
const gainShareMin = 0.05;
/** Candidates looked at per turn: those that relieve most per byte. */
const candidatesMax = 64;
const pairsMax = 32;
const swapTriesMax = 200;
const skippedMax = 200;

type Work = {
  readonly board: Board;
  readonly ask: RebalanceAsk;
  readonly nowMs: number;
  readonly moves: PlannedMove[];
  readonly skipped: Skip[];
  bytes: number;
};

export function planRebalance(
  bins: readonly Bin[],
  units: readonly Unit[],
  ask: RebalanceAsk,
  nowMs: number,
): Rebalance {
  const weigh = weightBy(ask.goal);
  const before = new Map(bins.map((bin) => [bin.cell, weigh(bin.load, bin.capacity)]));
  const board = new Board(bins, units, ask.goal);
  const work: Work = { board, ask, nowMs, moves: [], skipped: [], bytes: 0 };
  empty(work);
  repair(work);
  if (isUneven(work, ask.startAbove)) {
    level(work);
    swap(work);
  }
  const cells = bins.map((bin) => ({
    cell: bin.cell,
    before: before.get(bin.cell) ?? 0,
    after: board.utilisation(bin),
  }));
  const peak = (side: "before" | "after") =>
    cells.reduce((most, one) => Math.max(most, one[side]), 0);
  const found = {
    ...{ moves: work.moves, skipped: work.skipped, cells, bytes: work.bytes },
    ...{ peakBefore: peak("before"), peakAfter: peak("after") },
    peakBound: peakBound(bins, units, ask.goal),
  };
  return { ...found, text: summaryOf(found, ask, takers(work).length > 0) };
}

/** Cells that take and are not being emptied: what balance is about. */
const takers = ({ board }: Work): readonly Bin[] =>
  board.bins.filter((bin) => bin.open && !bin.leaving);

function isUneven(work: Work, above: number): boolean {
  const all = takers(work).map((bin) => work.board.utilisation(bin));
  if (all.length < 2) return false;
  const mean = all.reduce((sum, one) => sum + one, 0) / all.length;
  return Math.max(...all) - mean > above * mean;
}

/** Everything leaves a cell that is drained or asked for as gone; the largest first, while there is room. */
function empty(work: Work): void {
  for (const bin of work.board.bins.filter(({ leaving }) => leaving)) {
    const leaving = [...work.board.units(bin.cell)].sort(
      (a, b) =>
        work.board.utilisationWith(bin, b.load, 1) - work.board.utilisationWith(bin, a.load, 1),
    );
    for (const unit of leaving) {
      if (unit.fixedBecause === null) send(work, unit, bin, "drain");
      else skip(work, unit.key, "fixed", unit.fixedBecause);
    }
  }
}

/** Units that stand where they may not: another region, another tier, beside one they are kept apart from. */
function repair(work: Work): void {
  for (const bin of work.board.bins.filter(({ leaving }) => !leaving)) {
    for (const unit of [...work.board.units(bin.cell)]) {
      if (unit.fixedBecause === null && isMisplaced(work, bin, unit)) {
        send(work, unit, bin, "repair");
      }
    }
  }
}

function isMisplaced({ board }: Work, bin: Bin, unit: Unit): boolean {
  if (unit.region !== null && unit.region !== bin.region) return true;
  if (bin.tiers.length > 0 && !bin.tiers.includes(unit.tier)) return true;
  return unit.apart !== null && (board.groups().get(bin.cell)?.get(unit.apart) ?? 0) > 1;
}

function send(work: Work, unit: Unit, from: Bin, why: "drain" | "repair"): void {
  const target = work.board.bestTarget(unit, from.cell);
  const text =
    why === "drain" ? `${from.cell} is being emptied` : `it may not stay in ${from.cell}`;
  if (isSpent(work)) {
    skip(work, unit.key, "budget", "the budget of moves or bytes is used up");
  } else if (target === undefined) {
    skip(work, unit.key, "nowhere", nowhere(work, unit, from));
  } else take(work, unit, from, target.bin, why, text);
}

function nowhere({ board }: Work, unit: Unit, from: Bin): string {
  const reasons = board.bins
    .filter(({ cell }) => cell !== from.cell)
    .map((bin) => whyNot(bin, unit, board.load(bin.cell), board.groups()))
    .filter((reason) => reason !== undefined);
  const shown = reasons.slice(0, 3).join("; ");
  return reasons.length === 0 ? "there is no other cell" : `no cell may take it: ${shown}`;
}

/** From the fullest cell on; one that has nothing to give is left out until the end. */
function level(work: Work): void {
  const { board, ask } = work;
  const stuck = new Set<string>();
  while (!isSpent(work) && isUneven(work, ask.stopBelow)) {
    const fullest = takers(work)
      .filter(({ cell }) => !stuck.has(cell))
      .reduce<Bin | undefined>(
        (most, bin) =>
          most === undefined || board.utilisation(bin) > board.utilisation(most) ? bin : most,
        undefined,
      );
    if (fullest === undefined || !isAboveMean(work, fullest)) return;
    const found = bestMove(work, fullest);
    if (found === undefined) {
      stuck.add(fullest.cell);
      skip(work, fullest.cell, "no-gain", "no unit would relieve it enough");
      continue;
    }
    take(work, found.unit, fullest, found.to, "balance", found.text);
  }
}

function isAboveMean(work: Work, bin: Bin): boolean {
  const all = takers(work);
  const mean = all.reduce((sum, one) => sum + work.board.utilisation(one), 0) / all.length;
  return work.board.utilisation(bin) > mean;
}

type Found = {
  readonly unit: Unit;
  readonly to: Bin;
  /** Gain per byte that is copied for it. */
  readonly worth: number;
  readonly text: string;
};

/** Of the candidates with most relief per byte, the one that is worth most. */
function bestMove(work: Work, from: Bin): Found | undefined {
  let best: Found | undefined;
  for (const unit of movable(work, from)) {
    const found = tryMove(work, from, unit);
    if (found !== undefined && found.worth > (best?.worth ?? 0)) best = found;
  }
  return best;
}

/** Gain: by how much the fuller of the two cells becomes emptier. */
function tryMove({ board, ask, bytes }: Work, from: Bin, unit: Unit): Found | undefined {
  if (bytes + unit.load.bytes > ask.bytesMax) return undefined;
  const target = board.bestTarget(unit, from.cell);
  if (target === undefined) return undefined;
  const now = board.utilisation(from);
  const gain = now - Math.max(board.utilisationWith(from, unit.load, -1), target.after);
  const gainMin = gainShareMin * ask.startAbove * now * relief;
  if (gain <= 0 || gain < gainMin) return undefined;
  const text = `${percent(now)} of ${from.cell} is used, ${percent(target.after)} of ${target.bin.cell} with it`;
  return { unit, to: target.bin, worth: gain / (unit.load.bytes + bytesOfAMove), text };
}

/** One unit of very many is a small part of its cell: the threshold is for cells, not for units. */
const relief = 0.01;

/**
 * Two units change places where that lowers the peak of their cells and no single move could. The order is
 * fixed, so the same fleet gives the same plan.
 */
function swap(work: Work): void {
  const { board } = work;
  for (let tries = 0; tries < swapTriesMax && !isSpent(work, 2); tries += 1) {
    const sorted = [...takers(work)].sort((a, b) => board.utilisation(b) - board.utilisation(a));
    const [full] = sorted;
    const spare = sorted.at(-1 - (tries % Math.max(1, sorted.length - 1)));
    if (full === undefined || spare === undefined || full === spare) return;
    if (!isUneven(work, work.ask.stopBelow)) return;
    const pair = bestPair(work, full, spare);
    if (pair === undefined) continue;
    const text = `they change places: ${percent(pair.peak)} instead of ${percent(board.utilisation(full))}`;
    take(work, pair.out, full, spare, "swap", text);
    take(work, pair.back, spare, full, "swap", text);
  }
}

type Pair = { readonly out: Unit; readonly back: Unit; readonly peak: number };

function bestPair(work: Work, full: Bin, spare: Bin): Pair | undefined {
  const backs = movable(work, spare).slice(0, pairsMax);
  let best: Pair | undefined;
  for (const out of movable(work, full).slice(0, pairsMax)) {
    for (const back of backs) {
      const peak = peakAfterSwap(work, { full, spare, out, back });
      const isBetter = peak < (best?.peak ?? work.board.utilisation(full)) - 1e-6;
      if (isBetter && maySwap(work, { full, spare, out, back })) best = { out, back, peak };
    }
  }
  return best;
}

type Swap = {
  readonly full: Bin;
  readonly spare: Bin;
  readonly out: Unit;
  readonly back: Unit;
};

function peakAfterSwap({ board }: Work, { full, spare, out, back }: Swap): number {
  const difference = subtract(out.load, back.load);
  return Math.max(
    board.utilisationWith(full, difference, -1),
    board.utilisationWith(spare, difference, 1),
  );
}

/** Groups are counted with both in their old places: who belongs to one is not swapped. */
const maySwap = ({ board }: Work, { full, spare, out, back }: Swap): boolean =>
  out.apart === null &&
  back.apart === null &&
  board.mayTake(spare, out, back.load) &&
  board.mayTake(full, back, out.load);

const movable = ({ board, ask, nowMs }: Work, bin: Bin): readonly Unit[] =>
  firstOf(
    board.units(bin.cell),
    ({ fixedBecause, cooldownUntilMs }) =>
      fixedBecause === null && (ask.ignoreCooldown || cooldownUntilMs <= nowMs),
  );

/** A cell may have a hundred thousand units; so many are looked at. */
function firstOf(units: readonly Unit[], isWanted: (unit: Unit) => boolean): readonly Unit[] {
  const found: Unit[] = [];
  for (const unit of units) {
    if (found.length >= candidatesMax) break;
    if (isWanted(unit)) found.push(unit);
  }
  return found;
}

function take(
  work: Work,
  unit: Unit,
  from: Bin,
  to: Bin,
  why: RebalanceMove["why"],
  text: string,
): void {
  const { board } = work;
  const now = board.utilisation(from);
  board.move(unit, from.cell, to.cell);
  const gain = now - Math.max(board.utilisation(from), board.utilisation(to));
  work.bytes += unit.load.bytes;
  const { key, epoch, load } = unit;
  work.moves.push({ key, from: from.cell, to: to.cell, epoch, load, gain, why, text });
}

const isSpent = (work: Work, more = 1): boolean =>
  work.moves.length + more > work.ask.movesMax || work.bytes >= work.ask.bytesMax;

function skip(work: Work, object: string, reason: string, text: string): void {
  if (work.skipped.length < skippedMax) work.skipped.push({ object, reason, text });
}

/** Three digits, however small: a fleet of a few tenants is not at zero. */
const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`;

function summaryOf(
  found: Pick<Rebalance, "moves" | "skipped" | "peakBefore" | "peakAfter" | "bytes">,
  ask: RebalanceAsk,
  hasTakers: boolean,
): string {
  const { moves, skipped, peakBefore, peakAfter, bytes } = found;
  if (!hasTakers) {
    return "Nothing can be moved: every cell is being emptied, removed or closed, so none is left to take tenants.";
  }
  const stranded = skipped.filter(({ reason }) => reason === "nowhere").length;
  const some = stranded === skippedMax ? `at least ${stranded}` : String(stranded);
  const rest =
    stranded === 0
      ? ""
      : ` ${some} that should leave cannot: no cell may take them, see what is left alone.`;
  if (moves.length === 0 && stranded > 0) return `Nothing can be moved.${rest}`;
  if (moves.length === 0) {
    return `Nothing to move: the fullest cell is at ${percent(peakBefore)}, less than ${percent(ask.startAbove)} above the mean or without a unit that would relieve it.`;
  }
  const verb = moves.length === 1 ? "brings" : "bring";
  return `${counted(moves.length, "move")} of ${bytes} bytes in all ${verb} the fullest cell from ${percent(peakBefore)} to ${percent(peakAfter)}.${rest}`;
}
