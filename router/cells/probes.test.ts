/** Probes over real sockets: what they see, that they do not pile up, and that they end. */
import { createServer, type RequestListener } from "node:http";
import { afterEach, expect, test, vi } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { createEndpoint } from "../../runtime/http/endpoint.ts";
import { systemRandom } from "../../runtime/random.ts";
import { closeServer, listenOn, tableOf } from "../../table/table.fixture.ts";
import { Probes } from "./probes.ts";

const closers: Array<() => Promise<unknown>> = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
const until = (check: () => unknown) => vi.waitFor(check, { timeout: 25_000, interval: 5 });

/** An application, and what probes of it every few milliseconds see. */
async function probed(serve: RequestListener, timeoutMs = 5000) {
  const server = createServer(serve);
  const port = await listenOn(server, 0);
  closers.push(() => closeServer(server));
  const url = `http://127.0.0.1:${port}/base`;
  const seen: boolean[] = [];
  const endpoint = createEndpoint({ url, clock: systemClock });
  closers.push(endpoint.close);
  const probes = new Probes({
    ...{ clock: systemClock, random: systemRandom, limits: { intervalMs: 10, timeoutMs } },
    endpoints: {
      at: () => [endpoint],
      observe: (_url, isGood) => void seen.push(isGood),
      forget: () => void seen.splice(0),
    },
  });
  closers.push(() => probes.close());
  const table = (health?: string) => {
    const one = tableOf(1, {}, { a: [url] });
    const [cell] = one.lists.cells;
    for (const service of Object.values(cell?.services ?? {})) {
      if (health !== undefined) Object.assign(service, { health });
    }
    return one;
  };
  return { seen, probes, table };
}

test.each([
  [200, undefined, true],
  [201, undefined, true],
  [302, undefined, true],
  [404, undefined, false],
  [500, undefined, false],
  [503, undefined, false],
  [403, undefined, false],
  // The gate of a cell's agent is there and works.
  [403, "GATE_HEADERS_MISSING", true],
])("status %s with code %s is %s", async (status, code, wanted) => {
  const asked: string[] = [];
  const { seen, probes, table } = await probed((req, res) => {
    asked.push(`${req.method} ${req.url}`);
    res.writeHead(status, code === undefined ? {} : { "x-cellfleet-error": code });
    // Its end never comes: the head is all that counts.
    res.write("x");
  });
  probes.follow(table("/healthz"));
  await until(() => expect(seen.length).toBeGreaterThan(1));
  expect(new Set(seen)).toEqual(new Set([wanted]));
  expect(new Set(asked)).toEqual(new Set(["GET /base/healthz"]));
});

test("one that hangs is no good, and has one probe at a time", async () => {
  let open = 0;
  let most = 0;
  const { seen, probes, table } = await probed((_req, res) => {
    open += 1;
    most = Math.max(most, open);
    res.on("close", () => {
      open -= 1;
    });
  }, 20);
  probes.follow(table("/healthz"));
  await until(() => expect(seen.length).toBeGreaterThan(2));
  expect(seen).not.toContain(true);
  await probes.close();
  await until(() => expect(open).toBe(0));
  expect(most).toBe(1);
});

test("without a path nobody is asked, and what leaves the table is left alone and forgotten", async () => {
  let asked = 0;
  const { seen, probes, table } = await probed((_req, res) => {
    asked += 1;
    res.end();
  });
  probes.follow(table());
  probes.follow(table("/healthz"));
  await until(() => expect(seen.length).toBeGreaterThan(0));
  const before = asked;
  expect(before).toBeGreaterThan(0);
  probes.follow(tableOf(2, {}, {}));
  expect(seen).toEqual([]);
  await probes.close();
  expect(seen).toEqual([]);
});
