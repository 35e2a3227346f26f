/**
 * What a run of `cellctl` touches of the outside: streams, environment, time, chance. `main.ts`
 * passes the real ones; a test passes its own, so that whole commands run inside a test.
 *
 * Data goes to `stdout` and nothing else does; everything for people goes to `stderr`.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";

export type Sink = {
  /** Resolves when the reader has taken it, so that a slow pipe slows us instead of filling memory. */
  readonly write: (text: string) => Promise<void>;
  readonly isTerminal: boolean;
  /** Of the terminal; undefined where there is none. */
  readonly columns: () => number | undefined;
};

export type Io = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly clock: Clock;
  readonly random: Random;
  /**
   * Starts to listen for Ctrl-C and polite end signals, and returns what they abort. The processes
   * of the fleet do not call this: they end in their own order.
   */
  readonly interrupts: () => AbortSignal;
  /** Version of the Node that runs this, without the `v`. */
  readonly nodeVersion: string;
};
