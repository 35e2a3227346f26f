/**
 * Active health: a GET now and then at each endpoint of a service that names a path for it. On a connection
 * of its own, so that it neither waits behind requests nor takes a seat from them; never a second one
 * before the first is over. GET, because after a HEAD the client closes the connection.
 *
 * What an observation means is decided in health-state.ts. A probe says that an endpoint answers, not that
 * it may serve: who may is in the table.
 */
import type { ErrorCode } from "../../contract/errors.ts";
import { headers as names } from "../../contract/headers.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import { jitter, type Random } from "../../runtime/random.ts";
import type { Endpoints } from "./endpoints.ts";

export type ProbeLimits = {
  readonly intervalMs: number;
  /** From the connection's first packet to the answer's head. */
  readonly timeoutMs: number;
};
/** Of the interval, so that routers and endpoints do not fall into step. */
const spread = 0.2;

export type ProbesOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: ProbeLimits;
  readonly endpoints: Pick<Endpoints, "at" | "observe" | "forget">;
};

type Running = {
  readonly path: string;
  readonly stop: AbortController;
  readonly done: Promise<void>;
};

export class Probes {
  readonly #options: ProbesOptions;
  readonly #running = new Map<string, Running>();
  #lists: TableState["lists"] | undefined;

  constructor(options: ProbesOptions) {
    this.#options = options;
  }

  /** After each change of the table. */
  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const wanted = targetsOf(lists);
    for (const [url, { path, stop }] of this.#running) {
      if (wanted.get(url) === path) continue;
      stop.abort();
      this.#running.delete(url);
      this.#options.endpoints.forget(url);
    }
    for (const [url, path] of wanted) {
      if (!this.#running.has(url)) this.#start(url, path);
    }
  }

  async close(): Promise<void> {
    const running = [...this.#running.values()];
    this.#running.clear();
    for (const { stop } of running) stop.abort();
    await Promise.all(running.map(({ done }) => done));
  }

  #start(url: string, path: string): void {
    const stop = new AbortController();
    this.#running.set(url, { path, stop, done: this.#run(url, path, stop.signal) });
  }

  async #run(url: string, path: string, signal: AbortSignal): Promise<void> {
    const { clock, random, limits, endpoints } = this.#options;
    // The first ones are spread over a whole interval: a new table has many endpoints.
    await clock.sleep(random.unit() * limits.intervalMs, signal);
    while (!signal.aborted) {
      await Promise.all(
        endpoints.at(url).map(async (endpoint) => {
          const isGood = await probe(endpoint, path, clock, limits.timeoutMs, signal);
          if (!signal.aborted) endpoints.observe(endpoint, isGood);
        }),
      );
      await clock.sleep(jitter(random, limits.intervalMs, spread), signal);
    }
  }
}

/** One path per endpoint: the first that a service names. */
function targetsOf({
  cells,
  globalServices = {},
}: TableState["lists"]): ReadonlyMap<string, string> {
  const targets = new Map<string, string>();
  for (const services of [...cells.map((cell) => cell.services), globalServices]) {
    for (const { endpoints, health } of Object.values(services)) {
      if (health === undefined) continue;
      for (const url of endpoints) if (!targets.has(url)) targets.set(url, health);
    }
  }
  return targets;
}

/** Never rejects. */
async function probe(
  endpoint: Endpoint,
  path: string,
  clock: Clock,
  timeoutMs: number,
  stop: AbortSignal,
): Promise<boolean> {
  const over = new AbortController();
  const end = () => over.abort("over");
  const timer = clock.after(timeoutMs, end, { background: true });
  stop.addEventListener("abort", end, { once: true });
  const pool = endpoint.openFresh();
  try {
    const answer = await pool.request({
      method: "GET",
      path: endpoint.basePath + path,
      headers: ["user-agent", "cellfleet-probe", "accept", "*/*"],
      signal: over.signal,
    });
    // The head is all that counts; its connection goes with the pool.
    answer.body.on("error", () => {}).destroy();
    return isWell(answer.statusCode, answer.headers[names.error]);
  } catch {
    // Refused, reset, late, not HTTP: for a probe it is all the same.
    return false;
  } finally {
    timer.cancel();
    stop.removeEventListener("abort", end);
    await pool.destroy();
  }
}

/** A gate that asks for a router's headers is there and works; the application behind it is its own matter. */
const gateCodes: ReadonlySet<string> = new Set<ErrorCode>([
  "GATE_HEADERS_MISSING",
  "ROUTER_SIGNATURE_INVALID",
]);

const isWell = (status: number, gateCode: string | string[] | undefined): boolean =>
  (status >= 200 && status < 400) || (typeof gateCode === "string" && gateCodes.has(gateCode));
