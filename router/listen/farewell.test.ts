/** A whole router that is told to end: probes hear of it first, and clients when it is their turn. */
import { expect, test } from "vitest";
import { admin, createBench, of, until } from "../running.fixture.ts";
import { openRaw } from "./listener.fixture.ts";

const bench = createBench();
const get = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Tenant-Id: acme\r\n\r\n";

test("what runs on this machine, a proxy as a rule, is not counted as one client", async () => {
  const { router } = await bench.startStatic(
    { cells: { a: { endpoints: ["http://127.0.0.1:1"] } }, tenants: { acme: "a" } },
    { clientsPerIpMax: 1 },
  );
  const clients = [1, 2, 3].map(() => openRaw(router.port, get));
  await until(() => expect(clients.every(({ text }) => / 503 /.test(text()))).toBe(true));
});

test("until its delay is over a router serves on as if nothing had been said", async () => {
  const url = await bench.startApp((_req, res) => res.end("ok"));
  const { router, lines } = await bench.startStatic(
    { cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } },
    { drainDelayMs: 600_000, drainAnnounceMs: 600_000, drainMs: 600_000 },
  );
  const client = openRaw(router.port, get);
  await until(() => expect(client.text()).toMatch(/keep-alive[\s\S]*ok$/));
  const over = router.close();
  await until(async () => expect((await admin(router, "/readyz")).status).toBe(503));
  client.socket.write(get);
  await until(() => expect(client.text().match(/keep-alive/g)).toHaveLength(2));
  // Whoever asks again does not want to wait for any of this.
  router.hurry();
  await Promise.all([over, client.closed]);
  expect(of(lines, "router.stopped")).toHaveLength(1);
});
