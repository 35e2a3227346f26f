/** How moves and their plans look to people. */
import type { z } from "zod";
import type {
  Move,
  MoveActed,
  MoveCheck,
  MovePlan,
  MovePlans,
  PauseParts,
  startedMovesSchema,
} from "../../contract/move-api.ts";
import { moveName, phaseBar, soakLeft } from "../move-progress.ts";
import { sourceOf, targetOf, wayOf } from "./move-ends.ts";
import type { View } from "./output.ts";
import { age, bytes, count, counted, duration } from "./units.ts";
import { padTo } from "./width.ts";

/** A move that is paused runs, and begins no further step; one that is over is not paused. */
const stateText = ({ state, paused }: Pick<Move, "state" | "paused">): string =>
  paused && (state === "running" || state === "pending") ? `${state}, paused` : state;

type Details = ReadonlyArray<readonly [string, string | readonly string[]]>;

export const moveView: View<Move> = {
  id: ({ id }) => id,
  columns: [
    { head: "MOVE", cell: ({ id }) => id },
    { head: "WHAT", cell: moveName },
    { head: "FROM", cell: sourceOf },
    { head: "TO", cell: targetOf },
    { head: "STATE", cell: stateText, state: true },
    { head: "STEP", cell: ({ step }) => step },
    { head: "COPIED", cell: ({ progress }) => bytes(progress.bytesCopied), right: true },
    {
      head: "PAUSE",
      cell: ({ pause }) => (pause === null ? "" : duration(pause.total)),
      right: true,
    },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
    { head: "KEYS", cell: ({ keys }) => String(keys.length), right: true, wide: true },
    { head: "ROWS", cell: ({ progress }) => count(progress.rowsCopied), right: true, wide: true },
    { head: "LAG", cell: ({ progress }) => lag(progress.lagBytes), right: true, wide: true },
    { head: "TRIES", cell: ({ tries }) => String(tries), right: true, wide: true },
    { head: "REVERSES", cell: ({ reverses }) => reverses ?? "", wide: true },
    { head: "REASON", cell: ({ reason }) => reason, wide: true },
  ],
  details: (move, nowMs) => [
    ["move", move.id],
    ["what", move.keys],
    ["way", wayOf(move)],
    ["state", stateText(move)],
    ["step", `${move.step}  ${phaseBar(move)}`.trimEnd()],
    ["headline", move.headline],
    ...marks(move),
    ...facts(move),
    ["switch", switchText(move)],
    ["soak", soakText(move, nowMs)],
    ["compared", move.verifications.flatMap(verificationLines)],
    ["steps", move.steps.map(({ at, step, text }) => `${at}  ${step}  ${text}`)],
    ...(move.error === null
      ? []
      : [["error", `${move.error.code}: ${move.error.message}`] as const]),
    ["reason", move.reason],
    ["created", `${move.createdAt} (${age(move.createdAt, nowMs)} ago)`],
  ],
};

const lag = (value: number | null): string => (value === null ? "" : bytes(value));

const marks = ({ id, asked, paused, reverses, attempt }: Move): Details => [
  ...(asked === null ? [] : [["asked", asked] as const]),
  ...(paused ? [["paused", `goes on with: cellctl move resume ${id}`] as const] : []),
  ...(reverses === null ? [] : [["takes back", reverses] as const]),
  ...(attempt > 1 ? [["attempt", String(attempt)] as const] : []),
];

function facts({ progress, pause }: Move): Details {
  const { rowsCopied, rowsTotal, bytesCopied, bytesTotal, lagBytes, bytesPerSecond } = progress;
  const rate = bytesPerSecond === null ? "" : `, ${bytes(bytesPerSecond)}/s`;
  const isCounted = rowsTotal > 0 || rowsCopied > 0;
  return [
    [
      "copied",
      isCounted
        ? `${count(rowsCopied)}/${count(rowsTotal)} rows, ${bytes(bytesCopied)}/${bytes(bytesTotal)}${rate}`
        : "no rows",
    ],
    ["lag", lagBytes === null ? "not known" : bytes(lagBytes)],
    ["pause", pause === null ? "not switched" : pauseText(pause)],
  ];
}

/** Its parts in the order in which they happen. */
function pauseText(pause: PauseParts): string {
  const parts = ["hold", "close", "fence", "drain", "commit", "activate", "release"] as const;
  return `${duration(pause.total)}: ${parts.map((part) => `${part} ${duration(pause[part])}`).join(", ")}`;
}

const switchText = ({ options, tries }: Move): string =>
  `${options.switch}, ${duration(options.pauseBudgetMs)} at most, ${tries} of ${counted(options.switchTriesMax, "try").replace("trys", "tries")}`;

const soakText = (move: Move, nowMs: number): string =>
  move.soakUntil === null || move.step !== "soaking"
    ? duration(move.options.soakMs)
    : `until ${move.soakUntil} (${soakLeft(move, nowMs)} left)`;

function verificationLines({ phase, at, equal, tables }: Move["verifications"][number]): string[] {
  const rows = tables.reduce((sum, { sourceRows }) => sum + sourceRows, 0);
  const unequal = tables.filter(
    (table) => table.sourceRows !== table.targetRows || table.sourceSum !== table.targetSum,
  );
  return [
    `${at}  ${phase}  ${equal ? "equal" : "DIFFERENT"}  ${count(rows)} rows in ${counted(tables.length, "table")}`,
    ...unequal.map(
      ({ store, table, sourceRows, targetRows }) =>
        `  ${store}/${table}: ${sourceRows} rows at the source, ${targetRows} at the target${sourceRows === targetRows ? ", unequal content" : ""}`,
    ),
  ];
}

export const startedView: View<z.infer<typeof startedMovesSchema>> = {
  id: ({ items }) => items.map(({ id }) => id).join(" "),
  columns: [],
};

export const actedView: View<MoveActed> = {
  id: ({ move }) => move.id,
  columns: moveView.columns.map((column) => ({
    ...column,
    cell: ({ move }: MoveActed, nowMs: number) => column.cell(move, nowMs),
  })),
};

/** One plan in full; of many what they cost together, and what stands against them. */
export const plansView: View<MovePlans> = {
  id: ({ items }) => items.flatMap(({ keys }) => keys).join(" "),
  columns: [],
  details: ({ items, skipped }) => {
    const [only] = items;
    const body = items.length === 1 && only !== undefined ? planDetails(only) : batchDetails(items);
    const left = skipped.map(({ object, text }) => `${object} ${text}`);
    return [...body, ...(left.length === 0 ? [] : [["skipped", left] as const])];
  },
};

const planDetails = (plan: MovePlan): Details => [
  ["move", plan.keys],
  ["way", wayOf(plan)],
  ["stores", plan.stores.join(", ")],
  ["tables", plan.tables.map(tableLine)],
  ["estimate", estimateText([plan])],
  ["checks", checkLines(plan.checks)],
  ["steps", plan.steps.map(({ step, text }, index) => `${index + 1}. ${step}: ${text}`)],
];

const tableLine = ({ store, table, rows, bytes: size }: MovePlan["tables"][number]): string =>
  `${store}/${table}  ${counted(rows, "row")}, ${bytes(size)}`;

/** About: the executor measures. Copies follow each other where they share a cell. */
function estimateText(plans: readonly MovePlan[]): string {
  const sum = (of: (estimate: MovePlan["estimate"]) => number): number =>
    plans.reduce((total, { estimate }) => total + of(estimate), 0);
  const pause = Math.max(0, ...plans.map(({ estimate }) => estimate.pauseMs));
  return `${count(sum(({ rows }) => rows))} rows, ${bytes(sum((one) => one.bytes))}, copied in ${duration(sum(({ copyMs }) => copyMs))}, pause about ${duration(pause)}`;
}

const checkWidth = 8;

/** What stands against it first, each with what mends it; what is well by name, a line per place. */
function checkLines(checks: readonly MoveCheck[]): string[] {
  const bad = ["refused", "warning"].flatMap((verdict) =>
    checks.filter((check) => check.verdict === verdict),
  );
  const well = Map.groupBy(
    checks.filter(({ verdict }) => verdict === "ok"),
    placeOf,
  );
  return [
    ...bad.flatMap((check) => {
      const { id, verdict, text, fix } = check;
      const line = `${padTo(verdict, checkWidth)}  ${placeOf(check)}${id}: ${text}`;
      return fix === "" ? [line] : [line, `${" ".repeat(checkWidth)}  fix: ${fix}`];
    }),
    ...[...well].map(
      ([place, found]) =>
        `${padTo("ok", checkWidth)}  ${place}${found.map(({ id }) => id).join(", ")}`,
    ),
  ];
}

const placeOf = ({ cell, store }: MoveCheck): string => {
  const where = [cell, store].filter((part) => part !== "").join("/");
  return where === "" ? "" : `${where}  `;
};

function batchDetails(plans: readonly MovePlan[]): Details {
  if (plans.length === 0) return [["moves", "none"]];
  const against = plans.flatMap((plan) =>
    checkLines(plan.checks.filter(({ verdict }) => verdict !== "ok")).map(
      (line) => `${moveName(plan)}  ${line}`,
    ),
  );
  return [
    ["moves", plans.map((plan) => `${moveName(plan)}  ${wayOf(plan)}  ${estimateText([plan])}`)],
    ["together", `${counted(plans.length, "move")}: ${estimateText(plans)}`],
    ["checks", against.length === 0 ? "all ok" : against],
  ];
}
