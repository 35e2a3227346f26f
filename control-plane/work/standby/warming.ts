/**
 * Keeps the application running at standbys that are ready, so that a takeover waits for no process to start.
 * There it is refused every key until a failover gives it some: it costs memory, and hardly anything else.
 *
 * What must always be true: one at a time, and none while a failover is under way, which needs the processors
 * more; what is started here says nothing about who serves.
 */
import type { Clock } from "../../../runtime/clock.ts";
import type { StandbyWorld } from "../../store/standby/world.ts";
import type { Provider } from "../provider.ts";

export type Warming = {
  /** Begins one, if one is cold. */
  readonly see: (world: StandbyWorld) => void;
  readonly stopAll: () => Promise<void>;
};

/** It takes a while until its agent says that the application answers. */
const settleMs = 15_000;
const retryFirstMs = 5000;
const retryMostMs = 300_000;

export function createWarming({
  provider,
  clock,
}: {
  readonly provider: Pick<Provider, "act">;
  readonly clock: Clock;
}): Warming {
  const tried = new Map<string, { readonly times: number; readonly notBeforeMs: number }>();
  let stop = new AbortController();
  let under: Promise<void> | undefined;

  async function warm(annex: string, signal: AbortSignal): Promise<void> {
    const before = tried.get(annex)?.times ?? 0;
    let pauseMs = settleMs;
    let times = 0;
    try {
      await provider.act(annex, "serve", { op: "" }, signal);
    } catch {
      // A failover would say why; until then a cold standby is as good as a warm one.
      times = before + 1;
      pauseMs = Math.min(retryFirstMs * 2 ** Math.min(before, 10), retryMostMs);
    }
    tried.set(annex, { times, notBeforeMs: clock.monotonicMs() + pauseMs });
  }

  return {
    see: (world) => {
      if (under !== undefined || world.failovers.size > 0) return;
      const nowMs = clock.monotonicMs();
      const cold = coldOnes(world).find((one) => nowMs >= (tried.get(one)?.notBeforeMs ?? 0));
      if (cold === undefined) return;
      under = warm(cold, stop.signal).finally(() => {
        under = undefined;
      });
    },
    stopAll: async () => {
      stop.abort();
      await under;
      stop = new AbortController();
      tried.clear();
    },
  };
}

/** Of a provider's. A physical one has no database that an application could open, until it is promoted. */
const coldOnes = ({ standbys }: StandbyWorld): string[] =>
  standbys
    .filter(({ state, warm }) => state === "ready" && !warm)
    .filter(({ byHand, provider }) => !byHand && provider === "logical")
    .map(({ annex }) => annex);
