/**
 * Finds out that an endpoint which took no connections takes them again, also when nobody asks for it: now
 * and then a connection on which nothing is sent. Only at such endpoints, and never two at once at one.
 *
 * An endpoint that is out for another reason is left to the next request and to probes: that it takes a
 * connection says nothing of what it was put out for.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import { jitter, type Random } from "../../runtime/random.ts";

export type Missing = {
  readonly endpoint: Pick<Endpoint, "name" | "openFresh" | "connectMs">;
  /** It is still named, and nothing is known to listen there. */
  readonly isMissing: () => boolean;
  readonly onBack: () => void;
};

/** Between two tries at one endpoint, and how far they are spread, so that routers do not fall into step. */
const comebackMs = 2000;
const spread = 0.25;

export class Comebacks {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #stop = new AbortController();
  /** By the endpoint's name. */
  readonly #waits = new Map<string, Promise<void>>();

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** One that is waited for already is waited for once. */
  watch(missing: Missing): void {
    const { name } = missing.endpoint;
    if (this.#stop.signal.aborted || this.#waits.has(name)) return;
    this.#waits.set(
      name,
      this.#wait(missing).finally(() => this.#waits.delete(name)),
    );
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#waits.values());
  }

  async #wait({ endpoint, isMissing, onBack }: Missing): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      await this.#clock.sleep(jitter(this.#random, comebackMs, spread), signal);
      if (signal.aborted || !isMissing()) return;
      const isBack = await connects(endpoint, this.#clock, signal);
      if (isBack && isMissing()) onBack();
    }
  }
}

/** As requests connect, TLS and all. Never rejects. */
async function connects(
  endpoint: Missing["endpoint"],
  clock: Clock,
  stop: AbortSignal,
): Promise<boolean> {
  const pool = endpoint.openFresh();
  const over = new AbortController();
  const end = () => over.abort("over");
  const timer = clock.after(endpoint.connectMs, end, { background: true });
  stop.addEventListener("abort", end, { once: true });
  let isConnected = false;
  // It comes before the request is written, so that the endpoint never sees one.
  pool.on("connect", () => {
    isConnected = true;
    end();
  });
  try {
    await pool.request({ method: "GET", path: "/", signal: over.signal });
  } catch {
    // Aborted by us, or there was no connection.
  } finally {
    timer.cancel();
    stop.removeEventListener("abort", end);
    await pool.destroy();
  }
  return isConnected;
}
