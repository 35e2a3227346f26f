/**
 * Logs are typed events, one JSON line each, on standard output.
 *
 * A room names its events in a map type of its own (`noun.past-tense` → fields) and asks for
 * `Log<ThatMap>`; the names are what tests and operators look for, so there is no free text.
 */
import type { Clock } from "./clock.ts";
import { isoTime } from "./clock.ts";

export const logLevels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

export type LogFields = Readonly<Record<string, unknown>>;
export type Log<Events extends { [name in keyof Events]: LogFields }> = {
  readonly event: <Name extends keyof Events & string>(
    name: Name,
    fields: Events[Name],
    level?: LogLevel,
  ) => void;
  /** The same of fields that are JSON already, without braces: for events that come with every request. */
  readonly written: <Name extends keyof Events & string>(name: Name, fields: string) => void;
};

export type LogOptions = {
  readonly clock: Clock;
  /** Which process speaks: `router`, `agent`, `control-plane`. */
  readonly part: string;
  readonly level: LogLevel;
  readonly write: (line: string) => void;
};

export function createLog<Events extends { [name in keyof Events]: LogFields }>(
  options: LogOptions,
): Log<Events> {
  const least = logLevels.indexOf(options.level);
  const time = createTimeText(options.clock);
  return {
    written: (name, fields) => {
      if (logLevels.indexOf("info") < least) return;
      const head = `{"time":"${time()}","level":"info","part":"${options.part}","event":"${name}"`;
      options.write(`${head},${fields}}\n`);
    },
    event: (name, fields, level = "info") => {
      if (logLevels.indexOf(level) < least) return;
      options.write(
        `${JSON.stringify({ time: time(), level, part: options.part, event: name, ...fields })}\n`,
      );
    },
  };
}

/** Many lines are written in one millisecond. */
function createTimeText(clock: Clock): () => string {
  let ofMs = Number.NaN;
  let text = "";
  return () => {
    const nowMs = clock.nowMs();
    if (nowMs !== ofMs) {
      ofMs = nowMs;
      text = isoTime(nowMs);
    }
    return text;
  };
}

/** JSON of a text; most texts need nothing but their quotes. */
export const jsonText = (text: string): string =>
  plainText.test(text) ? `"${text}"` : JSON.stringify(text);

/** Printable ASCII without quote and backslash. */
const plainText = /^[ !#-[\]-~]*$/;

/** An error as log fields: the code if there is one, the message, the cause's message. */
export function errorFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error: String(error) };
  const code = "code" in error && typeof error.code === "string" ? { code: error.code } : {};
  const cause = error.cause instanceof Error ? { cause: error.cause.message } : {};
  return { error: error.message, ...code, ...cause };
}
