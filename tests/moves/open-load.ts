/**
 * Orders that come at their own pace, whether or not those before them are answered, as customers do: each
 * is sent once, and whatever is not an acknowledgement counts. Records what was asked and told, and how
 * long each answer took.
 */
import { Agent } from "undici";
import { type Asking, attempt, type Question } from "../../history/ask.ts";
import type { Outcome } from "../../history/outcome.ts";
import type { Recorder } from "../../history/recorder.ts";
import { orderSchema } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";

export type Stream = {
  readonly tenants: readonly string[];
  /** Of all of them together. */
  readonly perSecond: number;
  /** It comes to that little by little, as long as this: nobody's first customers are all of them. 0 without. */
  readonly rampMs?: number;
};

/** One order, when it was sent and what it came to. */
export type Sample = {
  readonly tenant: string;
  readonly sentMs: number;
  readonly tookMs: number;
  readonly outcome: Outcome;
  /** Why it is not done; empty: it is. */
  readonly reason: string;
};

export type OpenLoad = {
  readonly samples: readonly Sample[];
  readonly asking: Asking;
  /** Orders without an answer. */
  readonly underWay: () => number;
  /** Sends no more, and waits for what is under way. */
  readonly stop: () => Promise<void>;
  readonly close: () => Promise<void>;
};

const tickMs = 4;
const timeoutMs = 30_000;
/** Above what waits at a router in the longest pause. */
const connectionsMax = 1024;

export function startOpenLoad(options: {
  /** Of a router; several take turns. The list may change meanwhile. */
  readonly router: string | readonly string[];
  readonly streams: readonly Stream[];
  readonly recorder: Recorder;
  readonly run: string;
}): OpenLoad {
  const { recorder, run } = options;
  const routers = typeof options.router === "string" ? [options.router] : options.router;
  let turn = 0;
  const router = (): string => {
    turn = (turn + 1) % Math.max(1, routers.length);
    return routers[turn] ?? "";
  };
  const dispatcher = new Agent({ connections: connectionsMax, allowH2: false });
  const asking = { router, dispatcher, timeoutMs };
  const over = new AbortController();
  const samples: Sample[] = [];
  const underWay = new Set<Promise<void>>();
  // Of a history a process has one operation at a time: whoever is done takes the next order.
  const idle: string[] = [];
  let numbers = 0;
  const fresh = (name: string): string => {
    numbers += 1;
    return `${name}${numbers}`;
  };

  async function send(tenant: string): Promise<void> {
    const process = idle.pop() ?? fresh("client-");
    const value = fresh(`${run}/`);
    const recorded = recorder.invoke({ process, tenant, value });
    const sentMs = systemClock.monotonicMs();
    const question: Question = {
      tenant,
      method: "POST",
      path: "/orders",
      headers: { "idempotency-key": value },
      body: { item: value, quantity: 1 },
    };
    const answer = await attempt(asking, question, orderSchema);
    const tookMs = systemClock.monotonicMs() - sentMs;
    const reason = answer.outcome === "ok" ? "" : answer.reason;
    samples.push({ tenant, sentMs, tookMs, outcome: answer.outcome, reason });
    if (answer.outcome === "ok") {
      recorded.ok({ cell: answer.cell, epoch: answer.epoch, ref: String(answer.result.id) });
    } else if (answer.outcome === "fail") recorded.fail(reason);
    else recorded.info(reason);
    idle.push(process);
  }

  /** So many orders as are due, be the tick late or not. */
  async function keepSending({ tenants, perSecond, rampMs = 0 }: Stream): Promise<void> {
    const startedMs = systemClock.monotonicMs();
    let sent = 0;
    while (!over.signal.aborted) {
      const forMs = systemClock.monotonicMs() - startedMs;
      const fullMs = forMs < rampMs ? forMs ** 2 / (2 * rampMs) : forMs - rampMs / 2;
      const due = Math.floor((fullMs / 1000) * perSecond);
      for (; sent < due; sent += 1) {
        const sending = send(tenants[sent % tenants.length] ?? "");
        underWay.add(sending);
        void sending.finally(() => underWay.delete(sending));
      }
      await systemClock.sleep(tickMs, over.signal);
    }
  }

  const running = Promise.all(options.streams.map(keepSending));
  const stop = async () => {
    over.abort();
    await running;
    await Promise.all(underWay);
  };
  return {
    ...{ samples, asking, stop, underWay: () => underWay.size },
    close: async () => {
      await stop();
      await dispatcher.destroy();
    },
  };
}
