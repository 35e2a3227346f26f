/** How failovers, their plans and detection look to people. */
import type { z } from "zod";
import type {
  Detection,
  Failover,
  FailoverActed,
  FailoverPlan,
  failoverDryRunSchema,
} from "../../contract/failover-api.ts";
import type { View } from "./output.ts";
import { age, bytes, counted, duration } from "./units.ts";
import { padTo } from "./width.ts";

type Details = ReadonlyArray<readonly [string, string | readonly string[]]>;

const keysText = ({ progress }: Failover): string =>
  progress.keys === 0 ? "" : `${progress.adopted}/${progress.keys}`;

const tookMs = ({ phases }: Failover): number =>
  Object.values(phases).reduce((sum, ms) => sum + ms, 0);

export const failoverView: View<Failover> = {
  id: ({ id }) => id,
  columns: [
    { head: "FAILOVER", cell: ({ id }) => id },
    { head: "CELL", cell: ({ cell }) => cell },
    { head: "MODE", cell: ({ mode }) => mode },
    { head: "BY", cell: ({ by }) => by },
    { head: "STEP", cell: ({ step }) => step, state: true },
    { head: "KEYS", cell: keysText, right: true },
    { head: "TOOK", cell: (one) => duration(tookMs(one)), right: true },
    { head: "AGE", cell: ({ op }, nowMs) => age(op.createdAt, nowMs) },
    { head: "HEADLINE", cell: ({ headline }) => headline, wide: true },
    { head: "REASON", cell: ({ op }) => op.reason, wide: true },
  ],
  details: (failover, nowMs) => [
    ["failover", failover.id],
    ["cell", failover.cell],
    ["mode", `${failover.mode}, by ${failover.by}`],
    ["step", failover.step],
    ["headline", failover.headline],
    ["progress", progressLines(failover)],
    ["took", phaseLines(failover)],
    ["witnesses", witnessLines(failover.plan.witnesses)],
    ["partners", partnerLines(failover.plan)],
    ["gates", gateLines(failover.plan.gates.filter(({ verdict }) => verdict === "block"))],
    ["lost", lostText(failover)],
    ["steps", failover.op.steps.map(({ at, step, text }) => `${at}  ${step}  ${text}`)],
    ...(failover.op.error === null
      ? []
      : [["error", `${failover.op.error.code}: ${failover.op.error.message}`] as const]),
    ["reason", failover.op.reason],
    ["began", `${failover.op.createdAt} (${age(failover.op.createdAt, nowMs)} ago)`],
  ],
};

function progressLines({ progress, mode }: Failover): string[] {
  const { keys, adopted, routed, unavailable, quarantined, reprotected } = progress;
  if (mode === "planned") return [`${reprotected} of ${keys} keys moved out`];
  return [
    `${adopted} of ${keys} keys adopted, ${routed} routed, ${reprotected} in whole cells again`,
    ...(unavailable > 0 ? [`${unavailable} unavailable: nobody holds a copy`] : []),
    ...(quarantined > 0
      ? [`${quarantined} left out: the symptom followed them to their new cell`]
      : []),
  ];
}

const phaseLines = ({ phases }: Failover): string[] => {
  const spent = Object.entries(phases);
  return spent.length === 0
    ? ["nothing yet"]
    : [spent.map(([step, ms]) => `${step} ${duration(ms)}`).join(", ")];
};

const witnessLines = (witnesses: FailoverPlan["witnesses"]): string[] =>
  witnesses.length === 0
    ? ["nobody was asked"]
    : witnesses.map((one) => `${padTo(one.says, 7)}  ${padTo(one.class, 13)}  ${one.text}`);

const partnerLines = ({ partners, unavailable }: FailoverPlan): string[] => [
  ...partners.map((one) => {
    const { state, keys, lagBytes, lagSeconds } = one;
    const name = partnerName(one, partners);
    return `${name}  ${counted(keys, "key")}  ${state}  ${lagText(lagBytes, lagSeconds)}`;
  }),
  ...(unavailable.keys === 0
    ? []
    : [`nobody  ${counted(unavailable.keys, "key")}  unavailable: ${unavailable.reason}`]),
];

type Partner = { readonly annex: string; readonly host: string };
/** One that keeps two standbys of the cell is shown with the id of each: it has a line for each. */
export const partnerName = ({ annex, host }: Partner, all: readonly Partner[]): string =>
  all.some((other) => other.host === host && other.annex !== annex) ? `${host} (${annex})` : host;

const lagText = (lagBytes: number | null, lagSeconds: number | null): string => {
  // The gate `lag` says why.
  const size = lagBytes === null ? "bytes not known" : bytes(lagBytes);
  return `behind ${size}, ${lagSeconds === null ? "no heartbeat yet" : duration(lagSeconds * 1000)}`;
};

/** Of one that has begun: whatever was closed somebody went past. */
const gateLines = (gates: FailoverPlan["gates"]): string[] =>
  gates.length === 0 ? ["all open"] : gates.map((gate) => gateLine(gate, [gate.name]));

/** Gates that are opened by a word of their own. */
const words: Readonly<Record<string, string>> = {
  lag: "--allow-data-loss",
  "power-off": "--proved-dead",
};

/** The name is what `--override` takes. `past`: what somebody has gone past. */
const gateLine = (
  { name, verdict, text, overridable }: FailoverPlan["gates"][number],
  past: readonly string[],
): string => {
  const isPast = verdict === "block" && overridable && past.includes(name);
  const way = words[name] ?? `--override ${name}`;
  const isOpened = overridable || name === "power-off";
  const hint = verdict === "block" && isOpened && !isPast ? `  (past it: ${way})` : "";
  const state = isPast ? "overridden" : verdict === "block" ? "CLOSED" : "open";
  return `${padTo(state, past.length === 0 ? 6 : 10)}  ${padTo(name, 13)}  ${text}${hint}`;
};

function lostText({ report, step }: Failover): string {
  if (report === null) {
    return step === "done" ? "nothing to report" : "told when it is verified";
  }
  const { lost, unknown, acked } = report.totals;
  return `${lost} of ${acked} acknowledged writes, ${unknown} unknown (${report.method})`;
}

/** `past`: gates that the command goes past, by name. */
export const failoverPlanView = (
  past: readonly string[] = [],
): View<z.infer<typeof failoverDryRunSchema>> => ({
  id: ({ plan }) => plan.cell,
  columns: [],
  details: ({ plan }): Details => [
    ["cell", plan.cell],
    ["mode", plan.mode],
    ["witnesses", witnessLines(plan.witnesses)],
    ["gates", plan.gates.map((gate) => gateLine(gate, past))],
    ["partners", partnerLines(plan)],
    ["wait", `${duration(plan.waitMs)} at most, until the old owner certainly has stopped`],
    ["steps", plan.steps.map(({ step, text }, index) => `${index + 1}. ${step}: ${text}`)],
  ],
});

export const failoverActedView: View<FailoverActed> = {
  id: ({ failover }) => failover.id,
  columns: failoverView.columns.map((column) => ({
    ...column,
    cell: ({ failover }: FailoverActed, nowMs: number) => column.cell(failover, nowMs),
  })),
};

export const detectionView: View<Detection> = {
  id: ({ cells }) => cells.map(({ id }) => id).join(" "),
  columns: [],
  details: (detection) => [
    ["policy", policyText(detection)],
    [
      "looked",
      detection.ageMs === null ? "nobody looks" : `${duration(Math.max(0, detection.ageMs))} ago`,
    ],
    ["cells", detection.cells.flatMap(cellLines)],
  ],
};

const policyText = ({ policy, policyFrom, policyBy, policyReason }: Detection): string =>
  policyFrom === "flag"
    ? `${policy} (as the control plane was started)`
    : `${policy} (set by ${policyBy}${policyReason === "" ? "" : `: ${policyReason}`})`;

/** Of one that is well a line is enough. */
const cellLines = ({ id, state, forMs, text, witnesses }: Detection["cells"][number]): string[] => [
  `${id}  ${state}  for ${duration(forMs)}  ${text}`,
  ...(state === "healthy" || witnesses.length === 0
    ? []
    : witnessLines(witnesses).map((line) => `  ${line}`)),
];
