/**
 * Where a move stands, in one line. On a terminal with everything that moves; elsewhere only what is
 * worth a line in a log: the step, and the copy by tenths.
 */
import type { Move, MoveStep } from "../contract/move-api.ts";
import { bytes, count, duration } from "./render/units.ts";

const phases = ["prepare", "copy", "catch up", "verify", "switch", "soak", "clean up"] as const;
type Phase = (typeof phases)[number];

const phaseOf: Readonly<Partial<Record<MoveStep, Phase>>> = {
  planned: "prepare",
  preflight: "prepare",
  preparing: "prepare",
  copying: "copy",
  "catching-up": "catch up",
  verifying: "verify",
  ready: "verify",
  holding: "switch",
  closing: "switch",
  fencing: "switch",
  draining: "switch",
  committing: "switch",
  activating: "switch",
  routing: "switch",
  reversing: "switch",
  soaking: "soak",
  diverged: "soak",
  cleaning: "clean up",
};

const barWidth = 12;

/** `███████░░░░░`: one part of the whole way per phase, and within the copy by bytes. */
export function phaseBar(move: Pick<Move, "step" | "progress">): string {
  const phase = phaseOf[move.step];
  if (phase === undefined) return move.step === "done" ? "█".repeat(barWidth) : "";
  const at = phases.indexOf(phase) + (phase === "copy" ? copied(move) : 0);
  const full = Math.min(barWidth, Math.round((at / phases.length) * barWidth));
  return "█".repeat(full) + "░".repeat(barWidth - full);
}

/** 0 to 1. What was estimated may be less than what is there. */
function copied({ progress }: Pick<Move, "progress">): number {
  const { bytesTotal, bytesCopied, rowsTotal, rowsCopied } = progress;
  if (bytesTotal > 0) return Math.min(1, bytesCopied / bytesTotal);
  return rowsTotal > 0 ? Math.min(1, rowsCopied / rowsTotal) : 0;
}

const percent = (share: number): string => `${Math.floor(share * 100)}%`;

/** `acme`, `acme and 3 more`, `users/slot/7`. */
export function moveName({ keys, keyspace }: Pick<Move, "keys" | "keyspace">): string {
  const [first = ""] = keys;
  const own = `${keyspace}/tenant/`;
  const name = first.startsWith(own) ? first.slice(own.length) : first;
  return keys.length > 1 ? `${name} and ${keys.length - 1} more` : name;
}

export const soakLeft = ({ soakUntil }: Pick<Move, "soakUntil">, nowMs: number): string =>
  soakUntil === null ? "" : duration(Math.max(0, Date.parse(soakUntil) - nowMs));

function copyFacts(move: Move): string[] {
  const { rowsCopied, rowsTotal, bytesCopied, bytesTotal, bytesPerSecond, etaMs } = move.progress;
  return [
    percent(copied(move)),
    `${count(rowsCopied)}/${count(rowsTotal)} rows`,
    `${bytes(bytesCopied)}/${bytes(bytesTotal)}`,
    ...(bytesPerSecond === null ? [] : [`${bytes(bytesPerSecond)}/s`]),
    ...(etaMs === null ? [] : [`eta ${duration(etaMs)}`]),
  ];
}

function facts(move: Move, nowMs: number): string[] {
  const { step, progress, tries, pause } = move;
  const { lagBytes } = progress;
  const lag = lagBytes === null ? [] : [`lag ${bytes(lagBytes)}`];
  if (step === "copying") return copyFacts(move);
  if (step === "catching-up" || step === "verifying") return lag;
  if (step === "ready") return [...lag, waitsFor(move)];
  const took = pause === null ? [] : [`pause ${duration(pause.total)}`];
  if (phaseOf[step] === "switch") return [`try ${Math.max(1, tries)}`, ...took];
  if (step === "soaking") return [...took, ...lag, `${soakLeft(move, nowMs)} left`];
  return took;
}

/** Of one that rests until somebody speaks: what to say. */
export function waitsFor({ id, step, paused, asked, options }: Move): string {
  if (paused) return `paused, goes on with: cellctl move resume ${id}`;
  return step === "ready" && options.switch === "manual" && asked === null
    ? `waits for: cellctl move switch ${id}`
    : "";
}

/** These say of a step what its other facts say as well. */
const saidOtherwise = ["waits for: cellctl move switch", "the target lacks "];

/** What is told of a step since it began: that it was tried before, and what stood in its way. */
function remark({ step, headline, steps }: Move): string {
  const begun = steps.findLast((one) => one.step === step);
  if (begun === undefined || begun.text === headline) return "";
  return saidOtherwise.some((known) => headline.includes(known)) ? "" : headline;
}

/** Switches that were taken back between two looks, each with its reason. */
export const takenBack = (before: Pick<Move, "steps">, after: Pick<Move, "steps">): string[] =>
  after.steps
    .slice(before.steps.length)
    .flatMap(({ step, text }) =>
      step === "releasing" ? [`the switch is taken back: ${text}`] : [],
    );

const askedFor = ({ asked }: Move): string => (asked === null ? "" : `asked for: ${asked}`);
const said = (parts: readonly string[]): string => parts.filter((part) => part !== "").join("  ");

/** For a terminal: everything, again and again on one line. What went wrong comes before what is cut off. */
export function liveLine(move: Move, nowMs: number): string {
  const told = remark(move);
  const rest = told === "" ? facts(move, nowMs) : [told];
  const pause = move.paused && move.step !== "ready" ? waitsFor(move) : "";
  return said([moveName(move), phaseBar(move), move.step, pause, ...rest, askedFor(move)]);
}

/** For a log: said once per change that matters. */
export function logLine(move: Move): string {
  const { id, step, tries } = move;
  const detail =
    step === "copying"
      ? `${Math.floor(copied(move) * 10) * 10}%`
      : phaseOf[step] === "switch"
        ? `try ${Math.max(1, tries)}`
        : "";
  return said([id, moveName(move), step, detail, remark(move), askedFor(move), waitsFor(move)]);
}

const shownMax = 3;

/** Many at once: how many are through, and what is under way. */
export function batchLine(moves: readonly Move[], isThrough: (move: Move) => boolean): string {
  const open = moves.filter((move) => !isThrough(move));
  const waiting = open.filter(({ step }) => step === "planned");
  const going = open.filter(({ step }) => step !== "planned");
  const shown = going.slice(0, shownMax).map((move) => {
    const share = move.step === "copying" ? ` ${percent(copied(move))}` : "";
    return `${moveName(move)} ${move.step}${share}`;
  });
  return [
    `${moves.length - open.length} of ${moves.length} moved`,
    `${going.length} under way${shown.length > 0 ? ` (${shown.join(", ")}${going.length > shownMax ? ", …" : ""})` : ""}`,
    `${waiting.length} waiting`,
  ].join(" · ");
}
