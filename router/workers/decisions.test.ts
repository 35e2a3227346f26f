/** What is decided about workers, on plain values. */
import { availableParallelism } from "node:os";
import { describe, expect, test } from "vitest";
import type { RememberedAnswer } from "../../contract/remembered-request.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createMetrics, renderMetrics } from "../../runtime/metrics.ts";
import { parseRouterConfig } from "../config.ts";
import { createLineBatch } from "./line-batch.ts";
import { readFromWorker, readToWorker } from "./messages.ts";
import { togetherRemembered } from "./remembered-by-all.ts";
import { judgeDeath, restartLimits } from "./restart-policy.ts";
import { shareOfConfig, shareOfLimit } from "./share.ts";
import { keepCounts } from "./worker-page.ts";
import { mayServe, stepWorker, workerEvents, workerStates } from "./worker-state.ts";

const configOf = (flags: object) =>
  parseRouterConfig({ listen: "127.0.0.1:1", admin: "127.0.0.1:2", table: "t.json", ...flags });

test("a worker's states, drawn", () => {
  const lines = workerStates.flatMap((state) =>
    workerEvents
      .filter((event) => stepWorker(state, event) !== state)
      .map((event) => `${state} --${event}--> ${stepWorker(state, event)}`),
  );
  expect(lines).toEqual([
    "starting --loaded--> ready",
    "starting --told-to-leave--> leaving",
    "starting --ended--> gone",
    "ready --given-doors--> opening",
    "ready --told-to-leave--> leaving",
    "ready --ended--> gone",
    "opening --opened--> open",
    "opening --told-to-leave--> leaving",
    "opening --ended--> gone",
    "open --told-to-leave--> leaving",
    "open --ended--> gone",
    "leaving --ended--> gone",
  ]);
  expect(workerStates.filter(mayServe)).toEqual(["opening", "open", "leaving"]);
});

describe("a worker's share", () => {
  test("of totals is a part, rounded up; of times and sizes of one request it is all", () => {
    const config = configOf({
      workers: "3",
      heldMax: "1000",
      bodyBytesMax: "1000",
      queueMs: "900",
    });
    const share = shareOfConfig(config);
    expect(share).toMatchObject({ heldMax: 334, bodyBytesMax: 1000, queueMs: 900, workers: 3 });
    expect(share.clientsMax * 3).toBeGreaterThanOrEqual(config.clientsMax);
  });

  test("of nothing is nothing, and of what is not limited it stays so", () => {
    expect(shareOfConfig(configOf({ workers: 4, tenantInflightMax: 0 })).tenantInflightMax).toBe(0);
    expect(shareOfLimit({ inFlightMax: 0, perSecond: 10 }, 4)).toEqual({
      inFlightMax: 0,
      perSecond: 2.5,
    });
    expect(shareOfLimit({ burst: 5 }, 4)).toEqual({ burst: 2 });
  });

  test("auto is one worker per core; nothing said is one thread", () => {
    expect(configOf({ workers: "auto" }).workers).toBe(availableParallelism());
    expect(configOf({}).workers).toBe(1);
    expect(() => configOf({ workers: "0" })).toThrow(/--workers/);
  });
});

describe("a death", () => {
  const { deathsMax, windowMs, backoffMaxMs } = restartLimits;
  const deaths = (count: number, atMs = 0) => Array.from({ length: count }, () => atMs);

  test("is repaired at once, then later and later", () => {
    const waits = [1, 2, 3, 4, 5, 6].map((count) => judgeDeath(deaths(count), 0));
    expect(waits.map((verdict) => (verdict.kind === "again" ? verdict.afterMs : -1))).toEqual([
      0, 0, 200, 400, 800, 1600,
    ]);
    const last = judgeDeath(deaths(deathsMax), 0);
    expect(last.kind === "again" && last.afterMs).toBe(backoffMaxMs);
  });

  test("too many in the window are not repaired; old ones are forgotten", () => {
    expect(judgeDeath(deaths(deathsMax + 1), windowMs - 1)).toEqual({
      ...{ kind: "give-up", deaths: deathsMax + 1 },
    });
    expect(judgeDeath(deaths(deathsMax + 1), windowMs).kind).toBe("again");
  });
});

test("a dead worker leaves counters and histograms, added up, and no gauges", () => {
  const dumpOf = (requests: number) => {
    const metrics = createMetrics();
    metrics.counter("a_total", "A.").inc({ cell: "x" }, requests);
    metrics.histogram("b_seconds", "B.", [1]).observe(requests);
    metrics.gauge("c", "C.").set(requests);
    return metrics.dump();
  };
  const text = renderMetrics([keepCounts(keepCounts([], dumpOf(2)), dumpOf(3))]);
  expect(text).toMatch(/a_total\{cell="x"\} 5\n/);
  expect(text).toMatch(/b_seconds_sum 5\nb_seconds_count 2\n/);
  expect(text).not.toMatch(/^c /m);
  const busy = createMetrics();
  const counter = busy.counter("a_total", "A.");
  for (let at = 0; at < 1500; at += 1) counter.inc({ cell: `c${at}` });
  const idle = createMetrics();
  const other = idle.counter("a_total", "A.");
  for (let at = 0; at < 1500; at += 1) other.inc({ cell: `d${at}` });
  const kept = keepCounts(keepCounts([], busy.dump()), idle.dump());
  expect(kept.find(({ name }) => name === "a_total")?.series).toHaveLength(2000);
});

test("lines travel whole, together, and at once when there are many", async () => {
  const sent: string[] = [];
  const batch = createLineBatch(systemClock, (lines) => sent.push(lines));
  batch.write("a\n");
  batch.write("b\n");
  expect(sent).toEqual([]);
  batch.flush();
  expect(sent).toEqual(["a\nb\n"]);
  batch.write(`${"c".repeat(70_000)}\n`);
  expect(sent).toHaveLength(2);
  batch.write("d\n");
  await systemClock.sleep(5);
  expect(sent.at(-1)).toBe("d\n");
});

test("what workers remember of a request is one answer, as sure as its least sure part", () => {
  const answer = (startedAt: string, since: string | null): RememberedAnswer => {
    const span = { kept: 1, max: 10, since };
    return {
      router: "r",
      startedAt,
      items: [],
      remembers: { failed: span, refused: span, sampled: span },
    };
  };
  const together = togetherRemembered(answer("2026-01-01", null), [
    answer("2026-01-03", "2026-01-05"),
    answer("2026-01-02", "2026-01-04"),
  ]);
  expect(together.startedAt).toBe("2026-01-03");
  expect(together.remembers.failed).toEqual({ kept: 3, max: 30, since: "2026-01-05" });
});

test("what is no message between threads is not taken for one", () => {
  expect(readToWorker({ kind: "drain" })).toEqual({ kind: "drain" });
  expect(() => readToWorker({ kind: "ready" })).toThrow(/no message between threads: ready/);
  expect(() => readFromWorker({ kind: "drain" })).toThrow(/no message/);
  for (const value of [null, 1, "drain", {}]) expect(() => readToWorker(value)).toThrow();
});
