/**
 * The workload against a real HTTP server that plays the fleet: an honest one is green, and each kind of
 * dishonesty is found by the checker.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { checkHistory } from "./check.ts";
import type { Entry, Verdict } from "./model.ts";
import { combine, outcomeOf, outcomeOfTrouble } from "./outcome.ts";
import { createRecorder } from "./recorder.ts";
import { startWorkload } from "./workload.ts";

type Kept = { id: number; item: string };
type Swap = { expected: string | null; value: string };
type Fault =
  | "none"
  | "forgets"
  | "doubles"
  | "answers late"
  | "refuses, yet does"
  | "wrong tenant"
  | "shows the past"
  | "sets what was not expected";
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** Keeps orders per tenant and honours idempotency keys; every third request meets the fault. */
async function startShop(fault: Fault): Promise<string> {
  const kept = new Map<string, Kept[]>();
  const answered = new Map<string, Kept>();
  const registers = new Map<string, string>();
  let requests = 0;

  function create(tenant: string, key: string, item: string, response: ServerResponse): void {
    requests += 1;
    const hit = requests % 3 === 0 ? fault : "none";
    const before = answered.get(key);
    const order = before ?? { id: requests, item };
    answered.set(key, order);
    const home = hit === "wrong tenant" ? "globex" : tenant;
    const orders = kept.get(home) ?? [];
    kept.set(home, orders);
    if (before === undefined && hit !== "forgets") orders.push(order);
    if (hit === "doubles") orders.push({ ...order, id: order.id + 1_000_000 });
    reply(hit, order, response);
  }

  /** Newest first, as the sample application. */
  function list(tenant: string, path: string, response: ServerResponse): void {
    requests += 1;
    const before = Number(new URL(path, "http://shop").searchParams.get("cursor") ?? Infinity);
    const shown = (kept.get(tenant) ?? [])
      .slice(0, fault === "shows the past" && requests % 3 === 0 ? -5 : undefined)
      .filter(({ id }) => id < before)
      .toSorted((a, b) => b.id - a.id);
    const items = shown.slice(0, 10);
    const next = shown.length > 10 ? `/orders?cursor=${items.at(-1)?.id}` : null;
    response.writeHead(200, { "x-cell": "cell-01", "x-cell-epoch": "1" });
    response.end(JSON.stringify({ items, next }));
  }

  function register(name: string, swap: Swap | undefined, response: ServerResponse): void {
    requests += 1;
    const found = registers.get(name) ?? null;
    const mistaken = fault === "sets what was not expected" && requests % 3 === 0;
    if (swap !== undefined && (mistaken || swap.expected === found))
      registers.set(name, swap.value);
    response.writeHead(200, { "x-cell": "cell-01", "x-cell-epoch": "1" });
    response.end(JSON.stringify({ found }));
  }

  const server = createServer((incoming, response) => {
    const tenant = String(incoming.headers["x-tenant-id"]);
    if (incoming.url?.startsWith("/registers/") === true) {
      const name = `${tenant}${incoming.url}`;
      readBody(incoming, (text) =>
        register(name, text === "" ? undefined : (JSON.parse(text) as Swap), response),
      );
      return;
    }
    if (incoming.method === "GET") {
      list(tenant, incoming.url ?? "/", response);
      return;
    }
    readBody(incoming, (text) => {
      const { item } = JSON.parse(text) as { item: string };
      create(tenant, String(incoming.headers["idempotency-key"]), item, response);
    });
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  closers.push(
    () =>
      new Promise<void>((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  );
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return `http://127.0.0.1:${address.port}`;
}

function readBody(incoming: IncomingMessage, then: (text: string) => void): void {
  let text = "";
  incoming.on("data", (chunk: Buffer) => {
    text += chunk.toString("utf8");
  });
  incoming.on("end", () => then(text));
}

function reply(fault: Fault, order: Kept, response: ServerResponse): void {
  if (fault === "answers late") {
    response.destroy();
  } else if (fault === "refuses, yet does") {
    response.writeHead(503, { "x-cellfleet-error": "CELL_UNREACHABLE" });
    response.end("{}");
  } else {
    response.writeHead(201, { "x-cell": "cell-01", "x-cell-epoch": "1" });
    response.end(JSON.stringify(order));
  }
}

async function runAgainst(fault: Fault, attemptsMax: number): Promise<Verdict> {
  const origin = await startShop(fault);
  const entries: Entry[] = [];
  const workload = startWorkload({
    router: () => origin,
    tenants: ["acme", "globex"],
    processesPerTenant: 2,
    ordersPerSecondMax: 2000,
    attemptsMax,
    requestTimeoutMs: 5000,
    recorder: createRecorder({
      clock: systemClock,
      run: "run-1",
      write: (entry) => entries.push(entry),
    }),
    clock: systemClock,
    run: "run-1",
    more: [
      { kind: "lists", tenants: ["acme"], processesPerTenant: 2, perSecondMax: 500 },
      { kind: "registers", tenants: ["acme"], processesPerTenant: 3, perSecondMax: 1000 },
    ],
  });
  closers.push(workload.close);
  const enough = () =>
    workload.counts().ok + workload.counts().fail > 40 && workload.otherCounts().ok > 60;
  while (!enough()) await systemClock.sleep(5);
  await workload.stop();
  await workload.readBack(5000);
  return checkHistory(entries);
}

describe("the workload", () => {
  test("against an honest shop: green, everything acknowledged is there", async () => {
    const verdict = await runAgainst("none", 1);
    expect(verdict.violations).toEqual([]);
    expect(verdict.counts.acknowledged).toBeGreaterThan(40);
    expect(verdict.counts.present).toBe(verdict.counts.acknowledged);
    expect(verdict.counts.lists).toBeGreaterThan(5);
    expect(verdict.counts.registers).toBeGreaterThan(20);
  });

  test("answers that never came are unknown, and repeating under the key settles them", async () => {
    const once = await runAgainst("answers late", 1);
    expect(once.violations).toEqual([]);
    expect(once.counts.unknown).toBeGreaterThan(0);
    const repeated = await runAgainst("answers late", 5);
    expect(repeated.violations).toEqual([]);
    expect(repeated.counts.acknowledged).toBeGreaterThan(repeated.counts.unknown);
  });

  for (const [fault, kind] of [
    ["forgets", "lost"],
    ["doubles", "duplicate"],
    ["refuses, yet does", "resurrected"],
    ["wrong tenant", "foreign"],
    ["shows the past", "stale-read"],
    ["sets what was not expected", "not-linearizable"],
  ] as const) {
    test(`against a shop that ${fault}: ${kind}`, async () => {
      const verdict = await runAgainst(fault, 1);
      expect(verdict.violations.map((violation) => violation.kind)).toContain(kind);
    });
  }
});

describe("what an answer means", () => {
  test.each([
    [201, undefined, "ok"],
    [503, "CELL_UNREACHABLE", "fail"],
    [421, "PLACEMENT_STALE", "fail"],
    [503, "OUTCOME_UNKNOWN", "unknown"],
    [504, "CELL_TIMEOUT", "unknown"],
    [500, "INTERNAL", "unknown"],
    [422, "SOMETHING_OF_THE_APP", "fail"],
    [500, undefined, "unknown"],
    [502, "SOMETHING_ELSE", "unknown"],
  ] as const)("%i %s is %s", (status, code, outcome) => {
    expect(outcomeOf(status, code)).toBe(outcome);
  });

  test("an unknown attempt stays unknown until one is acknowledged", () => {
    expect(combine(undefined, "fail")).toBe("fail");
    expect(combine("unknown", "fail")).toBe("unknown");
    expect(combine("fail", "unknown")).toBe("unknown");
    expect(combine("unknown", "ok")).toBe("ok");
  });

  test("only a refused connection certainly carried nothing", () => {
    expect(outcomeOfTrouble(Object.assign(new Error("x"), { code: "ECONNREFUSED" }))).toBe("fail");
    expect(outcomeOfTrouble(Object.assign(new Error("x"), { code: "ECONNRESET" }))).toBe("unknown");
    expect(outcomeOfTrouble("x")).toBe("unknown");
  });
});
