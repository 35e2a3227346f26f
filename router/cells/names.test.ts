/** Several addresses behind one name: each has its own connections, and they come and go. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { endpointLimits } from "../../runtime/http/endpoint.ts";
import { systemRandom } from "../../runtime/random.ts";
import { closeServer, tableOf } from "../../table/table.fixture.ts";
import { Endpoints } from "./endpoints.ts";
import { Names, usedOf } from "./names.ts";

const closers: Array<() => Promise<unknown>> = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

test.each([
  [[], []],
  [["10.0.0.1"], ["10.0.0.1"]],
  [["::1"], ["::1"]],
  // One of each family: the system tries both.
  [["::1", "127.0.0.1"], []],
  [
    ["::1", "10.0.0.2", "10.0.0.1", "10.0.0.1"],
    ["10.0.0.1", "10.0.0.2"],
  ],
  [["fd00::1", "fd00::2", "10.0.0.1"], []],
  [
    Array.from({ length: 20 }, (_, nth) => `10.0.0.${10 + nth}`),
    Array.from({ length: 16 }, (_, nth) => `10.0.0.${10 + nth}`),
  ],
])("of %j %j are used", (found, used) => {
  expect(usedOf(found)).toEqual(used);
});

/** Loopback has more addresses than one; a server on each tells which it is. */
async function startTwins() {
  const hits: string[] = [];
  const listen = async (host: string, port: number) => {
    const server = createServer((req, res) => {
      hits.push(`${host} ${req.headers.host}`);
      res.end();
    });
    await new Promise<void>((resolve) => server.listen(port, host, resolve));
    closers.push(() => closeServer(server));
    return (server.address() as AddressInfo).port;
  };
  const port = await listen("127.0.0.1", 0);
  await listen("127.0.0.2", port);
  return { hits, url: `http://orders.cells.test:${port}` };
}

test("each address gets requests; what comes is used, what goes is left, and no answer changes nothing", async () => {
  const { hits, url } = await startTwins();
  const dns: { answer: readonly string[] | undefined; asked: number; failed: number } = {
    ...{ answer: ["127.0.0.1", "127.0.0.2"], asked: 0, failed: 0 },
  };
  const names = new Names({
    ...{ clock: systemClock, random: systemRandom, intervalMs: 5 },
    lookup: async () => {
      dns.asked += 1;
      if (dns.answer === undefined) throw new Error("SERVFAIL");
      return dns.answer.map((address) => ({ address }));
    },
    onFailed: () => {
      dns.failed += 1;
    },
    onChange: () => endpoints.refresh(),
  });
  closers.push(async () => names.close());
  const endpoints: Endpoints = new Endpoints({
    ...{ clock: systemClock, random: systemRandom, limits: endpointLimits },
    addressesOf: (one) => names.addressesOf(one),
  });
  closers.push(() => endpoints.close());
  const table = tableOf(1, {}, { a: [url] });
  const urls = must(table.lists.cells[0]?.services["default"]?.endpoints, "endpoints");
  names.follow(table.lists);
  endpoints.follow(table);
  await vi.waitFor(() => expect(endpoints.count(urls)).toBe(2));

  const send = async (count: number) => {
    hits.splice(0);
    for (let nth = 0; nth < count; nth += 1) {
      const picked = must(endpoints.pick(urls, undefined), "an endpoint");
      await (await picked.endpoint.pool.request({ method: "GET", path: "/" })).body.text();
    }
    return new Set(hits.map((hit) => hit.split(" ")[0]));
  };
  expect(await send(40)).toEqual(new Set(["127.0.0.1", "127.0.0.2"]));
  // The name stays what the endpoint is asked by.
  expect(hits.every((hit) => hit.endsWith(new URL(url).host))).toBe(true);
  expect(endpoints.load().map((view) => view.url)).toEqual([url]);

  const first = must(endpoints.pick(urls, undefined), "an endpoint").endpoint.name;
  for (let nth = 0; nth < 20; nth += 1) {
    expect(endpoints.pick(urls, first)?.endpoint.name).not.toBe(first);
  }

  dns.answer = undefined;
  await vi.waitFor(() => expect(dns.failed).toBeGreaterThan(2));
  expect(endpoints.count(urls)).toBe(2);
  dns.answer = ["127.0.0.2"];
  await vi.waitFor(() => expect(endpoints.count(urls)).toBe(1));
  expect(await send(20)).toEqual(new Set(["127.0.0.2"]));

  names.follow(tableOf(2, {}, {}).lists);
  const before = dns.asked;
  expect(names.addressesOf(url)).toEqual([]);
  names.close();
  expect(dns.asked - before).toBeLessThanOrEqual(1);
});
