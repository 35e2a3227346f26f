/** What an agent keeps in memory: keys and their age, rates and sizes of tenants, the pages of a report. */
import { describe, expect, test } from "vitest";
import { parseKeyspaceName, parseTenantId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import type { OwnedKey } from "../store/ownership.ts";
import { OwnershipCache, staleMaxMs } from "./ownership-cache.ts";
import { OwnershipReport } from "./ownership-report.ts";
import { RequestMeter } from "./request-meter.ts";
import { TenantStats } from "./tenant-stats.ts";

const keyspace = must(parseKeyspaceName("default"), "keyspace");
const tenant = (name: string) => must(parseTenantId(name), "tenant");
const row = (key: string, change: number) => ({ key, state: "active" as const, epoch: 1, change });

describe("the memory of keys", () => {
  test("remembers up to which change it has read", () => {
    const cache = new OwnershipCache();
    cache.put([row("default/tenant/a", 3), row("default/tenant/b", 7)]);
    expect(cache.change).toBe(7);
    cache.put([{ ...row("default/tenant/a", 9), state: "fenced", epoch: 2 }]);
    expect(cache.get("default/tenant/a")).toEqual({ state: "fenced", epoch: 2 });
    expect(cache.countByState()).toMatchObject({ active: 1, fenced: 1, moved: 0 });
  });

  test("forgets all when another database is read, whose numbers begin anew", () => {
    const cache = new OwnershipCache();
    cache.put([row("default/tenant/a", 900)]);
    cache.replace([row("default/tenant/b", 2)]);
    expect(cache.get("default/tenant/a")).toBeUndefined();
    expect(cache.change).toBe(2);
    expect(cache.countByState()).toMatchObject({ active: 1 });
  });

  test("is fresh for its bound, counted from before the reading was asked for", () => {
    const cache = new OwnershipCache();
    expect(cache.isFresh(0)).toBe(false);
    cache.markRead(1000);
    cache.markRead(400); // An answer that came late says nothing newer.
    expect(cache.isFresh(1000 + staleMaxMs)).toBe(true);
    expect(cache.isFresh(1001 + staleMaxMs)).toBe(false);
  });
});

describe("a report of all keys", () => {
  const stored: OwnedKey[] = ["B", "a", "c", "d"].map((name) => ({
    ...{ key: `logs/range/${name}`, state: "active", epoch: 4, revision: 1, change: 1 },
  }));
  const read = async (after: string, limit: number) =>
    stored.filter(({ key }) => key > after).slice(0, limit);

  test("goes in pages and is over after the last", async () => {
    const report = new OwnershipReport(read, 3);
    expect(await report.page()).toBeUndefined();
    report.begin();
    const first = must(await report.page(), "page");
    expect(first.entries.map(({ key }) => key.slice(-1))).toEqual(["B", "a", "c"]);
    expect(first.last).toBe(false);
    // Not arrived: the same again.
    expect(await report.page()).toBe(first);
    report.sent();
    report.begin(); // Asked for again while it is under way.
    expect(await report.page()).toEqual({
      entries: [{ key: "logs/range/d", state: "active", epoch: 4 }],
      last: true,
    });
    report.sent();
    expect(report.open).toBe(false);
  });

  test("ends with an empty page when the last was full, or when there is nothing", async () => {
    for (const limit of [4, 2]) {
      const report = new OwnershipReport(read, limit);
      report.begin();
      const pages: number[] = [];
      while (report.open) {
        pages.push(must(await report.page(), "page").entries.length);
        report.sent();
      }
      expect(pages.at(-1)).toBe(0);
      expect(pages.reduce((sum, length) => sum + length)).toBe(4);
    }
  });

  test("that nobody asks for any more is given up", async () => {
    const report = new OwnershipReport(read, 2);
    report.begin();
    await report.page();
    report.end();
    expect(await report.page()).toBeUndefined();
    report.begin();
    expect((await report.page())?.entries[0]?.key).toBe("logs/range/B");
  });
});

describe("requests per tenant", () => {
  test("are a rate over the window, which then begins anew", () => {
    const meter = new RequestMeter(0);
    for (let n = 0; n < 30; n += 1) meter.count(keyspace, tenant("acme"));
    expect(meter.take(10_000)).toEqual([{ keyspace, tenant: "acme", rps: 3 }]);
    expect(meter.take(20_000)).toEqual([]);
  });

  test("are counted for a bounded number of tenants", () => {
    const meter = new RequestMeter(0, 2);
    for (const name of ["a", "b", "c", "a"]) meter.count(keyspace, tenant(name));
    expect(meter.take(1000)).toEqual([
      { keyspace, tenant: "a", rps: 2 },
      { keyspace, tenant: "b", rps: 1 },
    ]);
  });
});

describe("what is reported of tenants", () => {
  const size = (name: string, rows: number, bytes: number) => ({
    ...{ keyspace: "default", tenant: name, rows, bytes },
  });

  test("is due until it arrived, and then only when it changed enough", () => {
    const stats = new TenantStats();
    stats.measure([size("a", 10, 1000.4)], []);
    const due = stats.due();
    expect(due).toEqual([{ keyspace, tenant: "a", rows: 10, bytes: 1000, rps: 0 }]);
    expect(stats.due()).toEqual(due);
    stats.reported(due);
    expect(stats.due()).toEqual([]);
    stats.measure([size("a", 10, 1010)], []);
    expect(stats.due()).toEqual([]);
    stats.measure([size("a", 11, 1010)], []);
    expect(stats.due().length).toBe(1);
  });

  test("falls to nothing, once, when a tenant has neither rows nor requests any more", () => {
    const stats = new TenantStats();
    stats.measure([size("a", 1, 100)], [{ keyspace, tenant: tenant("b"), rps: 5 }]);
    stats.reported(stats.due());
    stats.measure([], []);
    const gone = stats.due();
    expect(gone.map(({ tenant: name, rows, rps }) => [name, rows, rps])).toEqual([
      ["a", 0, 0],
      ["b", 0, 0],
    ]);
    stats.reported(gone);
    stats.measure([], []);
    expect(stats.due()).toEqual([]);
  });

  test("leaves out rows under keys that no router could name", () => {
    const stats = new TenantStats();
    stats.measure([size("with space", 1, 1), size("", 1, 1)], []);
    expect(stats.due()).toEqual([]);
  });
});
