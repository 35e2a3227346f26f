/** Objectives and error budgets, for people. */
import { everything, type Slo, type SloState } from "../../contract/slo-api.ts";
import type { View } from "./output.ts";
import { count } from "./units.ts";

export const sloView: View<Slo> = {
  id: ({ id }) => id,
  columns: [
    { head: "OBJECTIVE", cell: ({ id }) => id },
    { head: "FOR", cell: (slo) => scopeOf(slo) },
    { head: "TARGET", cell: ({ target }) => percentOf(target) },
    { head: "WINDOW", cell: ({ windowDays }) => `${windowDays}d` },
    { head: "WORST", cell: ({ worst }) => worst?.cell ?? "-" },
    { head: "REQUESTS", cell: ({ worst }) => (worst === null ? "-" : count(worst.requests)) },
    { head: "FAILURES", cell: ({ worst }) => (worst === null ? "-" : count(worst.failures)) },
    { head: "LEFT", cell: ({ worst }) => (worst === null ? "-" : leftOf(worst)) },
    { head: "BURN 1H", cell: ({ worst }) => (worst === null ? "-" : times(worst.burn["1h"])) },
    { head: "BURN 6H", cell: ({ worst }) => (worst === null ? "-" : times(worst.burn["6h"])) },
    { head: "VERDICT", cell: ({ worst }) => worst?.verdict ?? "-" },
  ],
  details: (slo) => [
    ["objective", `${slo.id}: ${percentOf(slo.target)} over ${slo.windowDays} d`],
    ["for", scopeOf(slo)],
    ["set", `${slo.since} by ${slo.by}${slo.reason === "" ? "" : `: ${slo.reason}`}`],
    ["cells", slo.cells.length === 0 ? "none in service" : slo.cells.map(lineOf)],
  ],
};

const lineOf = (state: SloState): string =>
  `${state.cell}  ${state.verdict}  ${leftOf(state)} left: ${count(state.failures)} failed, ${count(state.budget)} allowed, of ${count(state.requests)} requests; burn ${times(state.burn["1h"])} (1h) ${times(state.burn["6h"])} (6h)`;

function scopeOf({ cell, service, tier }: Slo): string {
  const parts = [
    cell === everything ? "each cell" : cell,
    ...(service === everything ? [] : [`service ${service}`]),
    ...(tier === everything ? [] : [`tier ${tier}`]),
  ];
  return parts.join(", ");
}

const percentOf = (share: number): string => `${Math.round(share * 1e5) / 1e3}%`;

/** Of too few requests nothing is said. */
const leftOf = ({ verdict, left }: SloState): string =>
  verdict === "few" ? "-" : `${Math.floor(left * 1000) / 10}%`;
const times = (burn: number): string => String(Math.round(burn * 10) / 10);
