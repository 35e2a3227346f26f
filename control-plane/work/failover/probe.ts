/**
 * Probes of cells' gates: twice a second, more often when asked, never two of one cell at a time. An answer
 * of any kind is an answer: the gate refuses what no router sent. What is counted is misses in a row, and since
 * when: many probes within a moment are no proof.
 */
import { request } from "undici";
import type { Clock } from "../../../runtime/clock.ts";
import type { ProbeTrack } from "../../core/failover/witness.ts";

export type Probed = { readonly cell: string; readonly gates: readonly string[] };

export type Prober = {
  /** Begins the probes that are due; `atOnce` are due sooner. Returns without waiting for them. */
  readonly look: (cells: readonly Probed[], atOnce: ReadonlySet<string>) => void;
  readonly track: (cell: string) => ProbeTrack;
  /** What was counted until now is void. */
  readonly forget: () => void;
  readonly close: () => void;
};

export const probeLimits = {
  everyMs: 500,
  /** Between two probes of a cell that witnesses disagree about. */
  atOnceMs: 200,
  /** Shorter than the interval. */
  timeoutMs: 450,
} as const;

type Counted = {
  misses: number;
  missingSinceMs: number | undefined;
  failure: string;
  startedMs: number;
  underWay: boolean;
};

export function createProber(options: {
  readonly clock: Pick<Clock, "monotonicMs">;
  /** Told when a cell begins to miss, or to answer again, or misses once more. */
  readonly onNews: () => void;
}): Prober {
  const { clock, onNews } = options;
  const stop = new AbortController();
  let counted = new Map<string, Counted>();

  function countedOf(cell: string): Counted {
    const known = counted.get(cell);
    if (known !== undefined) return known;
    const startedMs = Number.NEGATIVE_INFINITY;
    const fresh = { misses: 0, missingSinceMs: undefined, failure: "", startedMs, underWay: false };
    counted.set(cell, fresh);
    return fresh;
  }

  async function probe({ gates }: Probed, one: Counted, startedMs: number): Promise<void> {
    const failures = await Promise.all(gates.map((gate) => ask(gate, stop.signal)));
    one.underWay = false;
    const failure = failures.includes(undefined) ? undefined : failures[0];
    const wasMissing = one.misses > 0;
    if (failure === undefined) {
      one.misses = 0;
      one.missingSinceMs = undefined;
    } else {
      one.misses += 1;
      one.missingSinceMs ??= startedMs;
      one.failure = failure;
    }
    if (!stop.signal.aborted && (wasMissing || failure !== undefined)) onNews();
  }

  return {
    look: (cells, atOnce) => {
      const nowMs = clock.monotonicMs();
      for (const cell of cells) {
        const one = countedOf(cell.cell);
        const gapMs = atOnce.has(cell.cell) ? probeLimits.atOnceMs : probeLimits.everyMs;
        if (cell.gates.length === 0 || one.underWay || nowMs - one.startedMs < gapMs) continue;
        one.underWay = true;
        one.startedMs = nowMs;
        void probe(cell, one, nowMs);
      }
      const known = new Set(cells.map(({ cell }) => cell));
      for (const cell of counted.keys()) if (!known.has(cell)) counted.delete(cell);
    },
    track: (cell) => {
      const one = counted.get(cell);
      if (one?.missingSinceMs === undefined) return { misses: 0, missingForMs: null, failure: "" };
      const { misses, failure, missingSinceMs } = one;
      return { misses, missingForMs: clock.monotonicMs() - missingSinceMs, failure };
    },
    forget: () => {
      counted = new Map();
    },
    close: () => stop.abort(),
  };
}

/** Why it did not answer; undefined: it did. */
async function ask(gate: string, stop: AbortSignal): Promise<string | undefined> {
  const { timeoutMs } = probeLimits;
  try {
    const { body } = await request(new URL("/livez", gate), {
      method: "GET",
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      signal: AbortSignal.any([stop, AbortSignal.timeout(timeoutMs)]),
    });
    await body.dump();
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "no answer";
  if (error.name === "TimeoutError") return `no answer within ${probeLimits.timeoutMs} ms`;
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}
