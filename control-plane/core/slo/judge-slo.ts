/**
 * Error budgets: what an objective allows, what was used of it, and how fast it burns now. Pure.
 *
 * What must always be true: a handful of failures burns no budget, however few requests there were, because
 * of small numbers nothing follows; and a window that is not filled with counts yet is taken as if it went on as
 * it began, so that the seconds of one failover do not burn the month of a fleet that is an hour old.
 */
import {
  everything,
  type Objective,
  type Slo,
  type SloState,
  type SloVerdict,
} from "../../../contract/slo-api.ts";
import { type BurnWindow, burnWindows, countedShare, dayMs } from "./windows.ts";

/** Below either of them nothing is said, neither of the budget nor of how it burns. */
export const requestsMin = 100;
export const failuresMin = 10;
/** 2 % of the budget of 30 days in an hour. */
export const fastBurn = 14.4;
/** 5 % of it in six hours. */
export const steadyBurn = 6;

/** Of one cell, service and tier in one window; tier "": of all, as routers saw them. */
export type WindowCount = {
  readonly cell: string;
  readonly service: string;
  readonly tier: string;
  readonly windowMs: number;
  readonly requests: number;
  readonly failures: number;
};
export type FirstCount = Pick<WindowCount, "cell" | "service" | "tier"> & {
  readonly firstMs: number;
};
export type Counted = {
  readonly nowMs: number;
  readonly windows: readonly WindowCount[];
  readonly firsts: readonly FirstCount[];
};

/** `cells`: those in service. An objective may name one that is not: nothing is said of it then. */
export const judgeSlos = (
  objectives: readonly Objective[],
  counted: Counted,
  cells: readonly string[],
): readonly Slo[] =>
  objectives.map((objective) => {
    const states = cells
      .filter((cell) => objective.cell === everything || objective.cell === cell)
      .map((cell) => judgeCell(objective, counted, cell));
    const worst = [...states].sort(worstFirst)[0] ?? null;
    return { ...objective, worst, cells: states };
  });

const severity: Readonly<Record<SloVerdict, number>> = {
  ...{ burnt: 0, "fast-burn": 1, burning: 2, ok: 3, few: 4 },
};
const worstFirst = (a: SloState, b: SloState): number =>
  severity[a.verdict] - severity[b.verdict] || a.left - b.left;

/** In words; empty: nothing stops what can wait. */
export const burntOf = (slos: readonly Slo[]): readonly string[] =>
  slos.flatMap(({ id, cells }) =>
    cells.filter(stopsWhatCanWait).map(({ cell, text }) => `${cell} / ${id}: ${text}`),
  );

export const stopsWhatCanWait = ({ verdict }: SloState): boolean =>
  verdict === "burnt" || verdict === "fast-burn";

function judgeCell(objective: Objective, counted: Counted, cell: string): SloState {
  const burnOf = openBurns(objective, counted, cell);
  const whole = burnOf(objective.windowDays * dayMs);
  const hour = burnOf(burnWindows["1h"]);
  const burn = {
    ...{ "5m": burnOf(burnWindows["5m"]).rate, "30m": burnOf(burnWindows["30m"]).rate },
    ...{ "1h": hour.rate, "6h": burnOf(burnWindows["6h"]).rate },
  };
  const verdict = verdictOf({ whole, hour, six: burnOf(burnWindows["6h"]), burn });
  return {
    ...{ cell, requests: whole.requests, failures: whole.failures, budget: whole.budget },
    ...{ left: 1 - whole.rate, burn, verdict },
    text: textOf(verdict, whole.rate, burn, objective.windowDays),
  };
}

type Burn = {
  readonly requests: number;
  readonly failures: number;
  readonly budget: number;
  /** Over a whole window this is the share of its budget that is used. */
  readonly rate: number;
};

function openBurns(
  { service, tier, target }: Objective,
  counted: Counted,
  cell: string,
): (windowMs: number) => Burn {
  const isMeant = (one: Pick<WindowCount, "cell" | "service" | "tier">): boolean =>
    one.cell === cell &&
    one.tier === (tier === everything ? "" : tier) &&
    (service === everything || one.service === service);
  const windows = counted.windows.filter(isMeant);
  const firstMs = Math.min(...counted.firsts.filter(isMeant).map((one) => one.firstMs));
  return (windowMs) => {
    const within = windows.filter((one) => one.windowMs === windowMs);
    const requests = within.reduce((sum, one) => sum + one.requests, 0);
    const failures = within.reduce((sum, one) => sum + one.failures, 0);
    if (requests === 0) return { requests, failures, budget: 0, rate: 0 };
    const budget = ((1 - target) * requests) / countedShare(counted.nowMs, windowMs, firstMs);
    return { requests, failures, budget, rate: failures / budget };
  };
}

function verdictOf(seen: {
  readonly whole: Burn;
  readonly hour: Burn;
  readonly six: Burn;
  readonly burn: Readonly<Record<BurnWindow, number>>;
}): SloVerdict {
  const { whole, hour, six, burn } = seen;
  if (whole.requests < requestsMin) return "few";
  if (says(whole) && whole.rate >= 1) return "burnt";
  if (says(hour) && Math.min(burn["1h"], burn["5m"]) >= fastBurn) return "fast-burn";
  if (says(six) && Math.min(burn["6h"], burn["30m"]) >= steadyBurn) return "burning";
  return "ok";
}

const says = ({ requests, failures }: Burn): boolean =>
  requests >= requestsMin && failures >= failuresMin;

function textOf(
  verdict: SloVerdict,
  used: number,
  burn: Readonly<Record<BurnWindow, number>>,
  days: number,
): string {
  const usedText = `${percent(used)} % of the budget of ${days} d is used`;
  switch (verdict) {
    case "few":
      return `fewer than ${requestsMin} requests in ${days} d`;
    case "ok":
    case "burnt":
      return usedText;
    case "burning":
      return `${usedText}, and it burns ${times(burn["6h"])} times too fast over 6 h`;
    case "fast-burn":
      return `${usedText}, and it burns ${times(burn["1h"])} times too fast over 1 h`;
  }
}

const percent = (share: number): number =>
  share < 0.1 ? Math.round(share * 1000) / 10 : Math.round(share * 100);
const times = (rate: number): number => Math.round(rate * 10) / 10;
