/**
 * Looks at streams of standbys, each about as often as the keeper looks, a few at a time, and never waits for one: a
 * database that stands still keeps nobody from seeing the others. What was seen too long ago is nothing.
 */
import { CellError } from "../../../contract/errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { StandbyPair, StandbyProvider, StandbyStatus } from "../../../standby/ports.ts";
import type { StreamSeen } from "../../core/standby/life.ts";

/** An answer older than this says nothing about now. */
const freshMs = 10_000;
const looksMax = 8;

export type StreamWatch = {
  /** Begins a look where it is time for one. */
  readonly look: (annex: string, pair: () => Promise<StandbyPair>) => void;
  readonly seen: (annex: string) => StreamSeen;
  readonly lagBytes: (annex: string) => number | null;
  /** What was seen before its stream was changed is void. */
  readonly forget: (annex: string) => void;
  readonly close: () => Promise<void>;
};

type Seen = {
  readonly atMs: number;
  readonly stream: StreamSeen;
  readonly lagBytes: number | null;
};

export function createStreamWatch(options: {
  readonly clock: Clock;
  readonly standby: Pick<StandbyProvider, "status">;
  readonly everyMs: number;
  /** A look found something else than the one before. */
  readonly onChange: () => void;
}): StreamWatch {
  const { clock, standby, everyMs } = options;
  const seen = new Map<string, Seen>();
  const begun = new Map<string, number>();
  const looking = new Map<string, Promise<void>>();

  async function look(annex: string, pair: () => Promise<StandbyPair>): Promise<void> {
    const sinceMs = clock.monotonicMs();
    begun.set(annex, sinceMs);
    const found = await statusOf(standby, pair);
    // It was forgotten meanwhile: what was seen was before.
    if (begun.get(annex) !== sinceMs) return;
    const before = seen.get(annex);
    seen.set(annex, { ...found, atMs: clock.monotonicMs() });
    if (phaseOf(before?.stream) !== phaseOf(found.stream)) options.onChange();
  }

  return {
    look: (annex, pair) => {
      const lastMs = begun.get(annex) ?? Number.NEGATIVE_INFINITY;
      const isTime = clock.monotonicMs() - lastMs >= everyMs * 0.9;
      if (!isTime || looking.has(annex) || looking.size >= looksMax) return;
      looking.set(
        annex,
        look(annex, pair).finally(() => looking.delete(annex)),
      );
    },
    seen: (annex) => {
      const one = seen.get(annex);
      if (one === undefined || clock.monotonicMs() - one.atMs > freshMs) return notSeen;
      return one.stream;
    },
    lagBytes: (annex) => seen.get(annex)?.lagBytes ?? null,
    forget: (annex) => {
      seen.delete(annex);
      begun.delete(annex);
    },
    close: async () => {
      await Promise.all(looking.values());
    },
  };
}

const notSeen: StreamSeen = { kind: "unseen", reason: "its stream was not seen yet" };

const phaseOf = (stream: StreamSeen | undefined): string =>
  stream?.kind === "seen" ? stream.phase : "";

/** Never rejects: whatever keeps one from looking is what was seen. */
async function statusOf(
  standby: Pick<StandbyProvider, "status">,
  pair: () => Promise<StandbyPair>,
): Promise<Omit<Seen, "atMs">> {
  try {
    const status: StandbyStatus = await standby.status(await pair());
    const { phase, reason, uncovered, lagBytes } = status;
    return { stream: { kind: "seen", phase, reason, uncovered }, lagBytes };
  } catch (error) {
    return { stream: { kind: "unseen", reason: textOf(error) }, lagBytes: null };
  }
}

export const textOf = (error: unknown): string => {
  if (error instanceof CellError) return error.message;
  return error instanceof Error ? error.message.slice(0, textMax) : "it failed";
};
const textMax = 300;
