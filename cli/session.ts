/**
 * One run of `cellctl`: its global options, and the things a command may need, made when it first
 * asks for them, so that `cellctl --help` loads nothing.
 */
import type { Api } from "./api.ts";
import { usage } from "./failures.ts";
import type { Io } from "./io.ts";
import { createOutput, type Format, formats, type Output } from "./render/output.ts";
import { type ColorMode, colorModes, createPaint, type Paint } from "./render/paint.ts";
import { createProgress, type Progress } from "./render/progress.ts";
import { parseDuration } from "./render/units.ts";

/** As commander leaves them on the program. */
export type GlobalOptions = {
  readonly output?: string;
  readonly headers?: boolean;
  readonly color?: string;
  readonly input?: boolean;
  readonly yes?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  readonly timeout?: string;
  readonly context?: string;
  readonly data?: string;
};

export type Session = {
  readonly io: Io;
  readonly out: Output;
  readonly progress: Progress;
  /** For standard error. */
  readonly paint: Paint;
  readonly fleetFlags: { readonly context?: string; readonly data?: string };
  readonly yes: boolean;
  /** May a person be asked? A terminal at both ends, and no `--no-input`. */
  readonly mayAsk: boolean;
  readonly verbose: boolean;
  /** Nothing but data, and errors. */
  readonly quiet: boolean;
  /** How long to wait for an operation. */
  readonly waitMs: number;
  readonly interrupted: () => AbortSignal;
  readonly api: () => Promise<Api>;
  /** A line for people on standard error; nothing with `--quiet`. */
  readonly note: (text: string) => Promise<void>;
  /** Closes what was opened. */
  readonly close: () => Promise<void>;
};

const waitDefaultMs = 600_000;

export function createSession(io: Io, options: GlobalOptions): Session {
  const format = parseFormat(options.output ?? "table");
  const color = parseColor(options.color ?? "auto");
  const paint = createPaint(io, io.stderr, color);
  const progress = createProgress({ stderr: io.stderr, paint, quiet: options.quiet === true });
  let signal: AbortSignal | undefined;
  let api: Promise<Api> | undefined;

  const interrupted = () => {
    signal ??= io.interrupts();
    return signal;
  };

  async function openApi(): Promise<Api> {
    const [{ findFleet, isOverheard }, { createApi }] = await Promise.all([
      import("./fleet.ts"),
      import("./api.ts"),
    ]);
    const fleet = await findFleet(io, options);
    if (isOverheard(fleet)) await note(`Warning: the token goes to ${fleet.origin} in the clear.`);
    return createApi(fleet, interrupted());
  }

  const note = async (text: string): Promise<void> => {
    await progress.clear();
    if (options.quiet !== true) await io.stderr.write(`${text}\n`);
  };

  return {
    io,
    out: createOutput({
      note,
      stdout: io.stdout,
      format,
      headers: options.headers !== false,
      paint: createPaint(io, io.stdout, color),
      nowMs: io.clock.nowMs,
    }),
    progress,
    paint,
    fleetFlags: {
      ...(options.context === undefined ? {} : { context: options.context }),
      ...(options.data === undefined ? {} : { data: options.data }),
    },
    yes: options.yes === true,
    mayAsk: options.input !== false && io.stdin.isTTY === true && io.stderr.isTerminal,
    verbose: options.verbose === true,
    quiet: options.quiet === true,
    waitMs: parseTimeout(options.timeout),
    interrupted,
    api: () => {
      api ??= openApi();
      return api;
    },
    note,
    close: async () => {
      await progress.clear();
      // An API that could not be opened has nothing to close; its error was reported where it arose.
      const opened = await api?.catch(() => undefined);
      await opened?.close();
    },
  };
}

export const isFormat = (raw: string): raw is Format =>
  (formats as readonly string[]).includes(raw);
const isColor = (raw: string): raw is ColorMode => (colorModes as readonly string[]).includes(raw);

function parseFormat(raw: string): Format {
  if (isFormat(raw)) return raw;
  throw usage(`--output "${raw}": must be one of ${formats.join(", ")}`);
}

function parseColor(raw: string): ColorMode {
  if (isColor(raw)) return raw;
  throw usage(`--color "${raw}": must be one of ${colorModes.join(", ")}`);
}

function parseTimeout(raw: string | undefined): number {
  if (raw === undefined) return waitDefaultMs;
  const ms = parseDuration(raw);
  if (ms === undefined || ms <= 0) {
    throw usage(`--timeout "${raw}": must be a time such as 30s, 10m or 1h30m`);
  }
  return ms;
}
