/** What the leader's detection shows: verdicts, failovers under way, and where automation stands still. */
import { failoverSteps } from "../../../contract/failover-api.ts";
import type { Labels, Metrics } from "../../../runtime/metrics.ts";
import { verdictStates } from "../../core/failover/detect.ts";
import { isFailoverEnd } from "../../core/failover/failover-state.ts";
import type { Watched } from "./watch.ts";

type Row = readonly [Labels, number];

/** Returns what is to be told of every look. */
export function showFailovers(metrics: Metrics): (watched: Watched) => void {
  let last: Watched | undefined;
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_verdict",
    "1 for what witnesses together say of each cell.",
    () =>
      (last?.verdicts ?? []).flatMap(({ cell, state }) =>
        verdictStates.map((one): Row => [{ cell, state: one }, one === state ? 1 : 0]),
      ),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_witness_gone",
    "1 where a kind of witnesses says that a cell is gone.",
    () =>
      (last?.verdicts ?? []).flatMap(({ cell, witnesses }) =>
        witnesses.map((one): Row => [{ cell, witness: one.class }, one.says === "gone" ? 1 : 0]),
      ),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_failovers",
    "Failovers that are not over, by step.",
    () =>
      failoverSteps
        .filter((step) => !isFailoverEnd(step))
        .map((step): Row => [{ step }, last?.steps.filter((one) => one === step).length ?? 0]),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_failover_held",
    "Cells that are confirmed gone, and that a gate keeps from being taken over by itself.",
    () => last?.held.length ?? 0,
  );
  return (watched) => {
    last = watched;
  };
}
