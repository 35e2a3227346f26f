/**
 * Time enters here and nowhere else: what needs time takes a `Clock`, so that a test can hold it.
 */
export type Timer = { readonly cancel: () => void };

export type Clock = {
  /** Wall clock, milliseconds since the epoch. Steps; never subtract two of them for a duration. */
  readonly nowMs: () => number;
  /** Monotonic, milliseconds from an arbitrary start. */
  readonly monotonicMs: () => number;
  /** Calls once after `ms`; does not keep the process alive by itself when `background`. */
  readonly after: (
    ms: number,
    run: () => void,
    options?: { readonly background?: boolean },
  ) => Timer;
  /** Resolves after `ms`, or at once when the signal aborts. Never rejects. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
};

function after(
  ms: number,
  run: () => void,
  options: { readonly background?: boolean } = {},
): Timer {
  const handle = setTimeout(run, ms);
  if (options.background === true) handle.unref();
  return { cancel: () => clearTimeout(handle) };
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const end = () => {
      timer.cancel();
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = after(ms, end);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/** Between two parts of long work, so that others have their turn; no time is meant to pass. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after,
  sleep,
};

/** ISO 8601 in UTC, for logs and answers. */
export const isoTime = (ms: number): string => new Date(ms).toISOString();
