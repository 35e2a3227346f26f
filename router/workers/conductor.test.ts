/** The main thread's part, with workers that do and say what a test tells them. */
import { createServer } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { deltaBodySchema } from "../../contract/routing-table.ts";
import type { TableState } from "../../contract/table-state.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { createMetrics, type MetricsDump } from "../../runtime/metrics.ts";
import { deltaOf, tableOf } from "../../table/table.fixture.ts";
import { parseRouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import { Conductor } from "./conductor.ts";
import { memberLimits } from "./member.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { restartLimits } from "./restart-policy.ts";
import { createWorkerMetrics } from "./worker-metrics.ts";
import type { WorkerEars, WorkerPort } from "./worker-port.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

type Scripted = {
  readonly told: ToWorker[];
  readonly say: (message: FromWorker) => void;
  readonly die: (error: Error) => void;
  /** What it answers to, by itself. */
  obeys: boolean;
};

/** From the one that is born as number `deadFrom`, counted from 0, threads die at birth. */
function bench(workers: number, deadFrom = Number.POSITIVE_INFINITY) {
  const threads: Scripted[] = [];
  const events: string[] = [];
  const registry = createMetrics();
  const spawn = (): WorkerPort => {
    let ears: WorkerEars | undefined;
    let ended = false;
    const end = () => {
      if (!ended) ears?.exit();
      ended = true;
    };
    const say = (message: FromWorker) => ears?.message(message);
    const thread: Scripted = {
      told: [],
      obeys: true,
      say,
      die: (error) => {
        ears?.error(error);
        end();
      },
    };
    const isDead = threads.length >= deadFrom;
    threads.push(thread);
    return {
      listen: (all) => {
        ears = all;
        queueMicrotask(() => (isDead ? thread.die(new Error("bad code")) : say({ kind: "ready" })));
      },
      post: (message) => {
        thread.told.push(message);
        if (thread.obeys) queueMicrotask(() => obey(message, say));
      },
      terminate: async () => end(),
    };
  };
  const metrics = createWorkerMetrics(registry);
  const conductor = new Conductor({
    workers,
    config: parseRouterConfig({ listen: "127.0.0.1:0", admin: "127.0.0.1:0", table: "t.json" }),
    clock: systemClock,
    log: createLog<RouterEvents>({
      ...{ clock: systemClock, part: "router", level: "debug" },
      write: (line) => events.push(JSON.parse(line).event),
    }),
    metrics,
    spawn,
    openDoors: async () => ({ http: createServer() }),
    onLines: () => {},
    onSeen: () => {},
    onDoubt: () => {},
    onAcked: () => {},
  });
  return { conductor, threads, events, metrics };
}

function obey(message: ToWorker, say: (message: FromWorker) => void): void {
  switch (message.kind) {
    case "table":
      say({ kind: "serves", revision: message.view.table.head.revision });
      return;
    case "delta":
      say({ kind: "serves", revision: message.body.to });
      return;
    case "open":
      say({ kind: "opened" });
      return;
    case "hand-over":
      say({ kind: "handed-over", doors: { http: createServer() } });
      return;
    case "drain":
      say({ kind: "drained", metrics: [], acked: [] });
  }
}

const atFive = () => tableOf(5, { acme: "a 1" });
const view = (table: TableState) => ({ table, protocol: "epoch", passThrough: undefined }) as const;
const thread = (threads: readonly Scripted[], at: number) => must(threads[at], `thread ${at}`);

/** A table and a delta of it that both were told; the first `obeying` workers serve it at once. */
async function published(workers: number, obeying: number) {
  const all = bench(workers);
  const table = atFive();
  all.conductor.publish(view(table), undefined);
  await all.conductor.start();
  const body = deltaBodySchema.parse(JSON.parse(deltaOf(table, { acme: "a 2" }).body));
  table.apply(body);
  for (const one of all.threads.slice(obeying)) one.obeys = false;
  all.conductor.publish(view(table), body);
  let settled = false;
  void all.conductor.settled().then(() => {
    settled = true;
  });
  await vi.advanceTimersByTimeAsync(1);
  return { ...all, table, isSettled: () => settled };
}

test("a revision is settled when the last worker serves it, and not before", async () => {
  const { conductor, threads, table, isSettled } = await published(3, 2);
  expect(threads.map(({ told }) => told.map(({ kind }) => kind))).toEqual(
    Array(3).fill(["table", "open", "delta"]),
  );
  expect(isSettled()).toBe(false);
  expect(conductor.settledRevision).toBe(5);
  thread(threads, 2).say({ kind: "serves", revision: table.revision });
  await vi.advanceTimersByTimeAsync(1);
  expect(isSettled()).toBe(true);
  expect(conductor.settledRevision).toBe(6);
});

test("a worker that does not acknowledge in time is replaced, and holds nothing up any more", async () => {
  const { conductor, threads, events, isSettled } = await published(2, 1);
  await vi.advanceTimersByTimeAsync(memberLimits.acknowledgeMs - 10);
  expect(isSettled()).toBe(false);
  await vi.advanceTimersByTimeAsync(20);
  expect(isSettled()).toBe(true);
  expect(events).toContain("worker.died");
  expect(threads).toHaveLength(3);
  // Its successor began with the table of now.
  expect(thread(threads, 2).told.map(({ kind }) => kind)).toEqual(["table", "open"]);
  expect(conductor.members.map(({ state, revision }) => `${state} ${revision}`)).toEqual([
    "open 6",
    "open 6",
  ]);
});

test("a worker that refuses a delta gets the whole table", async () => {
  const { threads, isSettled } = await published(2, 1);
  const refusing = thread(threads, 1);
  refusing.obeys = true;
  refusing.say({ kind: "refused", text: "gap" });
  await vi.advanceTimersByTimeAsync(1);
  expect(refusing.told.at(-1)?.kind).toBe("table");
  expect(isSettled()).toBe(true);
});

test("a restart raises the successor before the old worker gives its sockets away", async () => {
  const { conductor, threads } = bench(2);
  conductor.publish(view(atFive()), undefined);
  await conductor.start();
  expect(await conductor.restart()).toBe(true);
  const kinds = threads.map(({ told }) => told.map(({ kind }) => kind));
  expect(kinds.slice(0, 2)).toEqual(Array(2).fill(["table", "open", "hand-over", "drain"]));
  expect(kinds.slice(2)).toEqual(Array(2).fill(["table", "open"]));
  expect(conductor.members.map(({ number }) => number)).toEqual([3, 4]);
});

test("a successor that does not come up ends the restart; the old worker serves on", async () => {
  const { conductor, threads, events } = bench(2, 2);
  await conductor.start();
  expect(await conductor.restart()).toBe(false);
  expect(events).toEqual(["worker.died", "worker.not-replaced"]);
  expect(thread(threads, 0).told.map(({ kind }) => kind)).toEqual(["open"]);
  expect(conductor.members.map(({ number, state }) => `${number} ${state}`)).toEqual([
    "1 open",
    "2 open",
  ]);
});

test("workers that die again and again end the router, after a bounded number", async () => {
  const { conductor, threads, events } = bench(2);
  await conductor.start();
  let failed = false;
  void conductor.failed.then(() => {
    failed = true;
  });
  for (let deaths = 0; deaths <= restartLimits.deathsMax; deaths += 1) {
    expect(failed).toBe(false);
    must(threads.at(-1), "thread").die(new Error("again"));
    await vi.advanceTimersByTimeAsync(restartLimits.backoffMaxMs);
  }
  expect(failed).toBe(true);
  expect(events.filter((event) => event === "worker.died")).toHaveLength(
    restartLimits.deathsMax + 1,
  );
  expect(events).toContain("worker.given-up");
});

const counted = (total: number): MetricsDump => [
  {
    ...{ name: "x_total", help: "X.", type: "counter", merge: "sum", buckets: [] },
    series: [{ labels: "", values: [total] }],
  },
  {
    ...{ name: "x_now", help: "X.", type: "gauge", merge: "sum", buckets: [] },
    series: [{ labels: "", values: [total] }],
  },
];

test("counters never fall: a silent worker is stood in for, a dead one's counts stay", async () => {
  const { conductor, threads, metrics } = bench(2);
  await conductor.start();
  /** `total` of each; undefined: it does not answer. */
  const scrape = async (...totals: (number | undefined)[]) => {
    const page = metrics.page(conductor.members);
    for (const [at, total] of totals.entries()) {
      const { told, say } = thread(threads, at);
      const asked = told.at(-1);
      if (asked?.kind !== "count" || total === undefined) continue;
      say({ kind: "counted", question: asked.question, metrics: counted(total) });
    }
    await vi.advanceTimersByTimeAsync(memberLimits.answerMs);
    return (await page).match(/^(x_\w+|\w+pages_missed_total) \d+$/gm);
  };
  const missed = "cellfleet_router_worker_pages_missed_total";
  expect(await scrape(1, 2)).toEqual([`${missed} 0`, "x_total 3", "x_now 3"]);
  expect(await scrape(5, undefined)).toEqual([`${missed} 1`, "x_total 7", "x_now 7"]);
  thread(threads, 1).die(new Error("gone"));
  await vi.advanceTimersByTimeAsync(1);
  // Of a dead worker the counts are kept, and not what it was doing.
  expect(await scrape(5, undefined, 0)).toEqual([`${missed} 1`, "x_total 7", "x_now 5"]);
});
