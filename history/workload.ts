/**
 * A client that orders through a router, as any customer's would, and records what it was told: unique
 * values, one Idempotency-Key per order, a bounded rate, a bounded number of attempts under the same key.
 *
 * The order of things for a test: start, do harm to the fleet, `stop`, `readBack`, then let the checker judge.
 */
import { Agent } from "undici";
import { z } from "zod";
import { cellHeader } from "../contract/headers.ts";
import { unreachable } from "../runtime/assert.ts";
import type { Clock } from "../runtime/clock.ts";
import { type Asking, ask, attempt } from "./ask.ts";
import { combine, type Outcome } from "./outcome.ts";
import { createReader, createRegisterUser } from "./read-load.ts";
import type { Recorder } from "./recorder.ts";

/**
 * `orders`: POST /orders. `lists`: the newest page of GET /orders. `registers`: compare and set, and looks,
 * at the registers of an application that has them (tests/register-app).
 */
export type Load = {
  readonly kind: "orders" | "lists" | "registers";
  readonly tenants: readonly string[];
  readonly processesPerTenant: number;
  /** Of all its processes together. */
  readonly perSecondMax: number;
};

/** The load of orders that stands in the options themselves, and `more` beside it. */
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
  readonly more?: readonly Load[];
};

export type WorkloadCounts = Readonly<Record<Outcome, number>>;

/** One turn of one process; it records what it asked and was told. */
export type Turn = (n: number) => Promise<Outcome>;

export type Workload = {
  /** Of orders. */
  readonly counts: () => WorkloadCounts;
  /** Of lists and registers. */
  readonly otherCounts: () => WorkloadCounts;
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

export const orderSchema = z.object({ id: z.union([z.number(), z.string()]), item: z.string() });
const pageSchema = z.object({ items: z.array(orderSchema), next: z.string().nullable() });

export function startWorkload(options: WorkloadOptions): Workload {
  const { clock } = options;
  const loads = [{ ...options, kind: "orders", perSecondMax: options.ordersPerSecondMax } as const];
  const processes = [...loads, ...(options.more ?? [])].flatMap(processesOf);
  const agent = new Agent({ connections: Math.max(64, processes.length), allowH2: false });
  const asking = { router: options.router, dispatcher: agent, timeoutMs: options.requestTimeoutMs };
  const over = new AbortController();
  const counts = { ok: 0, fail: 0, unknown: 0 };
  const otherCounts = { ...counts };

  async function runProcess(one: Process): Promise<void> {
    const turn = createTurn(options, asking, over.signal, one);
    const counted = one.kind === "orders" ? counts : otherCounts;
    for (let n = 0; !over.signal.aborted; n += 1) {
      const startedMs = clock.monotonicMs();
      counted[await turn(n)] += 1;
      const restMs = startedMs + one.intervalMs - clock.monotonicMs();
      await clock.sleep(Math.max(0, restMs), over.signal);
    }
  }

  const running = Promise.all(processes.map(runProcess));
  const ordering = processes.filter(({ kind }) => kind === "orders").map(({ tenant }) => tenant);
  return {
    counts: () => ({ ...counts }),
    otherCounts: () => ({ ...otherCounts }),
    stop: async () => {
      over.abort();
      await running;
    },
    readBack: async (withinMs) => {
      const deadlineMs = clock.monotonicMs() + withinMs;
      for (const tenant of new Set(ordering)) {
        await readTenant(options, asking, tenant, deadlineMs);
      }
    },
    close: async () => {
      over.abort();
      await running;
      await agent.destroy();
    },
  };
}

type Process = Pick<Load, "kind"> & {
  readonly tenant: string;
  readonly process: string;
  readonly intervalMs: number;
};

function processesOf(load: Load): Process[] {
  const { kind, tenants, processesPerTenant } = load;
  const intervalMs = (1000 * tenants.length * processesPerTenant) / load.perSecondMax;
  const suffix = { orders: "", lists: "list", registers: "register" }[kind];
  return tenants.flatMap((tenant) =>
    Array.from({ length: processesPerTenant }, (_, index) => ({
      kind,
      tenant,
      process: `${tenant}#${suffix}${index}`,
      intervalMs,
    })),
  );
}

function createTurn(
  options: WorkloadOptions,
  asking: Asking,
  over: AbortSignal,
  { kind, tenant, process }: Process,
): Turn {
  const { recorder, run } = options;
  switch (kind) {
    case "orders":
      return (n) =>
        placeOrder(options, { asking, over, tenant, process, value: `${run}/${process}/${n}` });
    case "lists":
      return createReader({ asking, recorder, run, tenant, process });
    case "registers":
      return createRegisterUser({ asking, recorder, run, tenant, process });
    default:
      return unreachable(kind);
  }
}

type Order = {
  readonly asking: Asking;
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
  for (let tries = 1; tries <= options.attemptsMax; tries += 1) {
    const answer = await attemptOrder(order);
    outcome = combine(outcome, answer.outcome);
    if (answer.outcome === "ok") {
      const { cell, epoch, result } = answer;
      recorded.ok({ cell, epoch, ref: String(result.id) });
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

const attemptOrder = ({ asking, tenant, value }: Order) =>
  attempt(
    asking,
    {
      tenant,
      method: "POST",
      path: "/orders",
      headers: { "idempotency-key": value },
      body: { item: value, quantity: 1 },
    },
    orderSchema,
  );

/** To its last page, tried again until `deadlineMs` of the clock is over; then it throws. */
export async function readTenant(
  options: Pick<WorkloadOptions, "run" | "recorder" | "clock">,
  asking: Asking,
  tenant: string,
  deadlineMs: number,
): Promise<void> {
  let next: string | null = `/orders?limit=${pageSize}`;
  while (next !== null) {
    const page: Page | string = await readPage(asking, tenant, next);
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
async function readPage(asking: Asking, tenant: string, path: string): Promise<Page | string> {
  try {
    const answer = await ask(asking, { tenant, method: "GET", path });
    const page = pageSchema.safeParse(answer.json);
    if (answer.status !== 200 || !page.success) return `${answer.status} ${answer.text}`;
    return { ...page.data, cell: answer.header(cellHeader) ?? "unnamed" };
  } catch (error) {
    return String(error);
  }
}
