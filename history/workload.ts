/**
 * A client that orders through a router, as any customer's would, and records what it was told: unique
 * values, one Idempotency-Key per order, a bounded rate, a bounded number of attempts under the same key.
 *
 * The order of things for a test: start, do harm to the fleet, `stop`, `readBack`, then let the checker judge.
 */
import { Agent, request } from "undici";
import { z } from "zod";
import { cellEpochHeader, cellHeader, headers } from "../contract/headers.ts";
import type { Clock } from "../runtime/clock.ts";
import { combine, type Outcome, outcomeOf, outcomeOfTrouble } from "./outcome.ts";
import type { Recorder } from "./recorder.ts";

export type WorkloadOptions = {
  /** Origin of a router, asked for at every attempt: a restart may move it. */
  readonly router: () => Promise<string> | string;
  readonly tenants: readonly string[];
  /** Clients per tenant, each with one order at a time. */
  readonly processesPerTenant: number;
  /** Of all clients together. */
  readonly ordersPerSecondMax: number;
  /** Attempts per order, all under one Idempotency-Key. */
  readonly attemptsMax: number;
  readonly requestTimeoutMs: number;
  readonly recorder: Recorder;
  readonly clock: Clock;
  /** Makes values unique between runs. */
  readonly run: string;
};

export type WorkloadCounts = Readonly<Record<Outcome, number>>;

export type Workload = {
  readonly counts: () => WorkloadCounts;
  /** Waits for orders under way; sends no more. */
  readonly stop: () => Promise<void>;
  /**
   * Reads every tenant to its last page and records what is there. Tries again until `withinMs` is over,
   * then throws. Only after `stop`.
   */
  readonly readBack: (withinMs: number) => Promise<void>;
  readonly close: () => Promise<void>;
};

const retryAfterMs = 100;
const pageSize = 100;

const orderSchema = z.object({ id: z.union([z.number(), z.string()]), item: z.string() });
const pageSchema = z.object({ items: z.array(orderSchema), next: z.string().nullable() });
const refusalSchema = z.object({ error: z.object({ code: z.string() }) });

export function startWorkload(options: WorkloadOptions): Workload {
  const { clock } = options;
  const agent = new Agent({ connections: 64, allowH2: false });
  const over = new AbortController();
  const counts = { ok: 0, fail: 0, unknown: 0 };
  const processes = options.tenants.flatMap((tenant) =>
    Array.from({ length: options.processesPerTenant }, (_, index) => ({
      tenant,
      process: `${tenant}#${index}`,
    })),
  );
  const intervalMs = (1000 * processes.length) / options.ordersPerSecondMax;

  async function runProcess({ tenant, process }: (typeof processes)[number]): Promise<void> {
    for (let n = 0; !over.signal.aborted; n += 1) {
      const startedMs = clock.monotonicMs();
      const value = `${options.run}/${process}/${n}`;
      counts[await placeOrder(options, { agent, over: over.signal, tenant, process, value })] += 1;
      const restMs = startedMs + intervalMs - clock.monotonicMs();
      await clock.sleep(Math.max(0, restMs), over.signal);
    }
  }

  const running = Promise.all(processes.map(runProcess));
  return {
    counts: () => ({ ...counts }),
    stop: async () => {
      over.abort();
      await running;
    },
    readBack: async (withinMs) => {
      const deadlineMs = clock.monotonicMs() + withinMs;
      for (const tenant of options.tenants) await readTenant(options, agent, tenant, deadlineMs);
    },
    close: async () => {
      over.abort();
      await running;
      await agent.destroy();
    },
  };
}

type Order = {
  readonly agent: Agent;
  readonly over: AbortSignal;
  readonly tenant: string;
  readonly process: string;
  readonly value: string;
};

async function placeOrder(options: WorkloadOptions, order: Order): Promise<Outcome> {
  const { over, tenant, process, value } = order;
  const recorded = options.recorder.invoke({ process, tenant, value });
  let outcome: Outcome | undefined;
  let reason = "";
  for (let attempt = 1; attempt <= options.attemptsMax; attempt += 1) {
    const answer = await attemptOrder(options, order);
    outcome = combine(outcome, answer.outcome);
    if (answer.outcome === "ok") {
      recorded.ok(answer.by);
      return "ok";
    }
    reason = answer.reason;
    if (over.aborted) break;
    await options.clock.sleep(retryAfterMs, over);
  }
  if (outcome === "fail") recorded.fail(reason);
  else recorded.info(reason);
  return outcome ?? "unknown";
}

type Attempt =
  | { readonly outcome: "ok"; readonly by: { cell: string; epoch: number; ref: string } }
  | { readonly outcome: "fail" | "unknown"; readonly reason: string };

async function attemptOrder(options: WorkloadOptions, order: Order): Promise<Attempt> {
  const { agent, tenant, value } = order;
  try {
    const answer = await send(options, agent, tenant, {
      method: "POST",
      path: "/orders",
      headers: { "content-type": "application/json", "idempotency-key": value },
      body: JSON.stringify({ item: value, quantity: 1 }),
    });
    const code =
      answer.header(headers.error) ?? refusalSchema.safeParse(answer.json).data?.error.code;
    const outcome = outcomeOf(answer.status, code);
    if (outcome !== "ok") return { outcome, reason: code ?? `status ${answer.status}` };
    const made = orderSchema.safeParse(answer.json);
    const cell = answer.header(cellHeader);
    const epoch = Number(answer.header(cellEpochHeader));
    if (!made.success || cell === undefined || !Number.isSafeInteger(epoch) || epoch < 1) {
      return { outcome: "unknown", reason: `${answer.status} without order, cell or epoch` };
    }
    return { outcome: "ok", by: { cell, epoch, ref: String(made.data.id) } };
  } catch (error) {
    return {
      outcome: outcomeOfTrouble(error) === "fail" ? "fail" : "unknown",
      reason: String(error),
    };
  }
}

async function readTenant(
  options: WorkloadOptions,
  agent: Agent,
  tenant: string,
  deadlineMs: number,
): Promise<void> {
  let next: string | null = `/orders?limit=${pageSize}`;
  while (next !== null) {
    const page: Page | string = await readPage(options, agent, tenant, next);
    if (typeof page === "string") {
      if (options.clock.monotonicMs() > deadlineMs) {
        throw new Error(`${tenant} could not be read in the end: ${page}`);
      }
      await options.clock.sleep(retryAfterMs);
      continue;
    }
    for (const { id, item } of page.items) {
      // What is not of this run (a demo order, a test of the run before) is not its business.
      if (!item.startsWith(`${options.run}/`)) continue;
      options.recorder.note({
        kind: "present",
        tenant,
        value: item,
        cell: page.cell,
        ref: String(id),
      });
    }
    next = page.next;
  }
  options.recorder.note({ kind: "read", tenant });
}

type Page = z.infer<typeof pageSchema> & { readonly cell: string };

/** The page, or why there is none. */
async function readPage(
  options: WorkloadOptions,
  agent: Agent,
  tenant: string,
  path: string,
): Promise<Page | string> {
  try {
    const answer = await send(options, agent, tenant, { method: "GET", path, headers: {} });
    const page = pageSchema.safeParse(answer.json);
    if (answer.status !== 200 || !page.success) return `${answer.status} ${answer.text}`;
    return { ...page.data, cell: answer.header(cellHeader) ?? "unnamed" };
  } catch (error) {
    return String(error);
  }
}

async function send(
  options: WorkloadOptions,
  agent: Agent,
  tenant: string,
  ask: {
    readonly method: "GET" | "POST";
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: string;
  },
) {
  const answer = await request(`${await options.router()}${ask.path}`, {
    method: ask.method,
    dispatcher: agent,
    headersTimeout: options.requestTimeoutMs,
    bodyTimeout: options.requestTimeoutMs,
    headers: { ...ask.headers, "x-tenant-id": tenant },
    ...(ask.body === undefined ? {} : { body: ask.body }),
  });
  const text = await answer.body.text();
  return {
    status: answer.statusCode,
    text,
    json: parseJson(text),
    header: (name: string): string | undefined => {
      const value = answer.headers[name];
      return Array.isArray(value) ? value[0] : value;
    },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Not JSON: the schemas refuse it, and the status is what counts.
  }
}
