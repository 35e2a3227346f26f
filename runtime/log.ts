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
  return {
    event: (name, fields, level = "info") => {
      if (logLevels.indexOf(level) < least) return;
      options.write(
        `${JSON.stringify({ time: isoTime(options.clock.nowMs()), level, part: options.part, event: name, ...fields })}\n`,
      );
    },
  };
}

/** An error as log fields: the code if there is one, the message, the cause's message. */
export function errorFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error: String(error) };
  const code = "code" in error && typeof error.code === "string" ? { code: error.code } : {};
  const cause = error.cause instanceof Error ? { cause: error.cause.message } : {};
  return { error: error.message, ...code, ...cause };
}
