/**
 * Colour, where a person can see it: a terminal, unless NO_COLOR or `--color` say otherwise.
 * Colour never carries meaning alone: the word is always there.
 */
import { styleText } from "node:util";
import type { Io, Sink } from "../io.ts";

export const colorModes = ["auto", "always", "never"] as const;
export type ColorMode = (typeof colorModes)[number];
export type Tone = "good" | "bad" | "warn" | "dim" | "strong";

const formats = {
  good: "green",
  bad: "red",
  warn: "yellow",
  dim: "dim",
  strong: "bold",
} as const satisfies Record<Tone, string>;

export type Paint = (tone: Tone | undefined, text: string) => string;

export function createPaint(io: Pick<Io, "env">, sink: Sink, mode: ColorMode): Paint {
  const on = mode === "always" || (mode === "auto" && wanted(io.env, sink));
  return (tone, text) =>
    on && tone !== undefined ? styleText(formats[tone], text, { validateStream: false }) : text;
}

/** https://no-color.org: any value but the empty one switches off; FORCE_COLOR, as Node reads it, on. */
function wanted(env: Io["env"], sink: Sink): boolean {
  const noColor = env["NO_COLOR"];
  const forced = env["FORCE_COLOR"];
  if (noColor !== undefined && noColor !== "") return false;
  if (forced !== undefined) return forced !== "0";
  return sink.isTerminal && env["TERM"] !== "dumb";
}

/** States of the fleet that are good or bad news; all others are shown plain. */
const tones: Readonly<Record<string, Tone>> = {
  active: "good",
  healthy: "good",
  done: "good",
  running: "good",
  normal: "good",
  yes: "good",
  true: "good",
  ok: "good",
  cordoned: "warn",
  draining: "warn",
  suspect: "warn",
  pending: "warn",
  hold: "warn",
  provisioning: "warn",
  throttle: "warn",
  recovering: "warn",
  stopped: "warn",
  down: "bad",
  dead: "bad",
  failed: "bad",
  quarantined: "bad",
  unavailable: "bad",
  no: "bad",
  "√": "good",
  "!": "warn",
  "×": "bad",
};

export const toneOf = (state: string): Tone | undefined =>
  Object.hasOwn(tones, state) ? tones[state] : undefined;
