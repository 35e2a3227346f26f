/** The busiest tenants have a series each, whoever they are; the number of series is bounded. */
import { describe, expect, test } from "vitest";
import { createMetrics } from "../../runtime/metrics.ts";
import { SpaceSaving } from "./space-saving.ts";
import { TopTenants, tenantSeriesMax } from "./top-tenants.ts";

function seriesOf(text: string): Map<string, number> {
  const lines = text.matchAll(/^tenants\{tenant="([^"]*)"\} (\d+)$/gm);
  return new Map([...lines].map(([, name = "", value]) => [name, Number(value)]));
}

function createTop(watchEvery = 1) {
  const metrics = createMetrics();
  const top = new TopTenants(metrics.counter("tenants", "."), watchEvery);
  return { top, series: () => seriesOf(metrics.text()) };
}

describe("space-saving", () => {
  test("counts exactly while there is room", () => {
    const counts = new SpaceSaving(3);
    for (const name of ["a", "b", "a", "c", "a", "b"]) counts.note(name);
    expect(counts.top(2)).toEqual(["a", "b"]);
    expect(counts.countOf("a")).toBe(3);
  });

  test("finds every name that is more frequent than its share of the memory", () => {
    const counts = new SpaceSaving(20);
    const total = 20_000;
    // Every third request is one of three giants; the others are all different.
    for (let at = 0; at < total; at += 1)
      counts.note(at % 3 === 0 ? `giant-${at % 9}` : `dust-${at}`);
    expect(new Set(counts.top(3))).toEqual(new Set(["giant-0", "giant-3", "giant-6"]));
    const truth = Math.ceil(total / 9);
    expect(counts.countOf("giant-0")).toBeGreaterThanOrEqual(truth - 1);
    expect(counts.countOf("giant-0")).toBeLessThanOrEqual(truth + total / 20);
  });

  test("never counts too little", () => {
    const counts = new SpaceSaving(5);
    const truth = new Map<string, number>();
    for (let at = 0; at < 500; at += 1) {
      const name = `name-${(at * at) % 11}`;
      truth.set(name, (truth.get(name) ?? 0) + 1);
      counts.note(name);
      expect(counts.countOf(name)).toBeGreaterThanOrEqual(truth.get(name) ?? 0);
    }
  });

  test("forgets with time", () => {
    const counts = new SpaceSaving(2);
    for (let at = 0; at < 100; at += 1) counts.note("yesterday");
    for (let turn = 0; turn < 8; turn += 1) counts.age();
    expect(counts.countOf("yesterday")).toBe(0);
  });
});

describe("top tenants", () => {
  test("a fleet of few tenants is counted exactly, from the first request", () => {
    const { top, series } = createTop();
    for (const tenant of ["acme", "globex", "acme"]) top.note(tenant);
    expect(Object.fromEntries(series())).toEqual({ _other: 0, acme: 2, globex: 1 });
  });

  test("a tenant that grows takes the series of one that does not, and no request is counted twice", () => {
    const { top, series } = createTop();
    for (let at = 0; at < tenantSeriesMax; at += 1) top.note(`small-${at}`);
    for (let at = 0; at < 90; at += 1) top.note("giant");
    expect(series().get("_other")).toBe(90);
    expect(series().has("giant")).toBe(false);
    top.rank();
    top.note("giant");
    expect(series().get("giant")).toBe(1);
    expect(series().get("_other")).toBe(90);
    expect(series().size).toBe(tenantSeriesMax + 1);
  });

  test("every request counts, also where one in seven decides over ranks", () => {
    const { top, series } = createTop(7);
    for (let at = 0; at < tenantSeriesMax * 20; at += 1) top.note(`small-${at % tenantSeriesMax}`);
    for (let at = 0; at < 1000; at += 1) top.note("giant");
    top.rank();
    for (let at = 0; at < 10; at += 1) top.note("giant");
    expect(series().get("giant")).toBe(10);
    expect(series().get("_other")).toBe(1000);
  });

  test("tenants alike do not take each other's series", () => {
    const { top, series } = createTop();
    const names = Array.from({ length: 200 }, (_, at) => `t-${at}`);
    for (let turn = 0; turn < 5; turn += 1) for (const name of names) top.note(name);
    for (const name of names.slice(100)) top.note(name); // A little busier than those that are shown.
    const before = [...series().keys()];
    for (let turn = 0; turn < 6; turn += 1) top.rank();
    expect([...series().keys()]).toEqual(before);
  });

  test("whatever names come, there are never more series", () => {
    const { top, series } = createTop();
    for (let at = 0; at < 20_000; at += 1) {
      top.note(`name-${(at * 7919) % 4001}`);
      if (at % 500 === 0) top.rank();
    }
    const all = series();
    expect(all.size).toBeLessThanOrEqual(tenantSeriesMax + 1);
    expect(all.get("_other")).toBeGreaterThan(0);
  });
});
