/**
 * The leader judges the error budgets every few seconds: what is burnt is written down for the safety rules, and
 * shown. A budget stops nobody for longer than it is burnt, and a leader's turn.
 */
import type { Slo, SloState } from "../../contract/slo-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Labels, Metrics } from "../../runtime/metrics.ts";
import type { Random } from "../../runtime/random.ts";
import { stopsWhatCanWait } from "../core/slo/judge-slo.ts";
import type { Database } from "../store/database.ts";
import { holdsTerm } from "../store/leader.ts";
import { readSlos, readStopping, writeBurnt } from "../store/slo.ts";
import type { Leadership } from "./lead.ts";

const intervalMs = 10_000;
const backoffMaxMs = 60_000;

export function startBudgeting(options: {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly metrics: Metrics;
  readonly onError: (error: unknown) => void;
}): Loop {
  const { database, clock, random, lead } = options;
  const show = showBudgets(options.metrics);
  return startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs, onError: options.onError },
    turn: async () => {
      const term = lead.term();
      show(term === undefined ? nothing : await judgeBudgets(database, term));
      return "idle";
    },
  });
}

export type Budgets = {
  readonly slos: readonly Slo[];
  /** The same objectives, as the safety rules go by them. */
  readonly stopping: readonly Slo[];
};
const nothing: Budgets = { slos: [], stopping: [] };

/** A month of counts is read before the lock on the term is taken: renewing it must not wait for that. */
export async function judgeBudgets(database: Database, term: number): Promise<Budgets> {
  const judged = await database.snapshot(async (tx) => ({
    slos: await readSlos(tx),
    stopping: await readStopping(tx),
  }));
  const isWritten = await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return false;
    await writeBurnt(tx, judged.stopping);
    return true;
  });
  return isWritten ? judged : nothing;
}

/** Only where this process leads, so that nobody shows what is old. */
export function showBudgets(metrics: Metrics): (judged: Budgets) => void {
  let last = nothing;
  const perCell =
    (
      of: keyof Budgets,
      read: (state: SloState) => number,
      isShown: (state: SloState) => boolean = () => true,
    ) =>
    () =>
      last[of].flatMap(({ id, cells }) =>
        cells
          .filter(isShown)
          .map((state): readonly [Labels, number] => [
            { objective: id, cell: state.cell },
            read(state),
          ]),
      );
  metrics.gaugeFrom(
    "cellfleet_slo_budget_left",
    "Share of the error budget that is left, by objective and cell; below 0 it is overdrawn.",
    perCell(
      "slos",
      ({ left }) => left,
      ({ verdict }) => verdict !== "few",
    ),
  );
  metrics.gaugeFrom(
    "cellfleet_slo_burnt",
    "1 where an error budget stops what can wait, by objective and cell.",
    perCell("stopping", (state) => (stopsWhatCanWait(state) ? 1 : 0)),
  );
  return (judged) => {
    last = judged;
  };
}
