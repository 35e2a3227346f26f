/** What a router makes of a state folder that cannot be read or written: it serves, and says so. */
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { startControlPlane, tableOf } from "../../table/table.fixture.ts";
import { startCell } from "../fleet.fixture.ts";
import { admin, ask, createBench, of, until } from "../running.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
const { closers, startRemote } = bench;

async function startFleet() {
  const a = await startCell("a", () => ({ acme: "a 1" }));
  const plane = await startControlPlane(tableOf(1, { acme: "a 1" }, { a: [a.url] }));
  closers.push(a.close, plane.close);
  const started = await startRemote(plane.url);
  await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
  return { plane, ...started };
}

describe("a state folder", () => {
  const metricsOf = async (router: Parameters<typeof admin>[0]) =>
    (await admin(router, "/metrics")).text;

  test.each([["table.ndjson"], ["seen.json"], ["journal.ndjson"], ["table.image"]])(
    "with %s that cannot be read is told of, and the control plane's table serves",
    async (name) => {
      await mkdir(join(bench.dir(), "state", name), { recursive: true });
      const { router, lines } = await startFleet();
      expect((await ask(router.port, "acme")).status).toBe(200);
      const [event] = of(lines, "table.refused");
      expect(event).toMatchObject({ level: "error", text: expect.any(String) });
      expect(await metricsOf(router)).toMatch(
        /cellfleet_router_table_refused_total\{reason="(unreadable|missing)"\} 1/,
      );
    },
  );

  test("that cannot be one is a mistake of the settings", async () => {
    await writeFile(join(bench.dir(), "state"), "");
    const down = await startControlPlane(tableOf(1, {}));
    closers.push(down.close);
    await expect(startRemote(down.url)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("on a full disk keeps no table from serving, and the metrics say that it is not stored", async () => {
    await mkdir(join(bench.dir(), "state", "table.ndjson.new"), { recursive: true });
    const { router, lines, plane } = await startFleet();
    expect((await ask(router.port, "acme")).status).toBe(200);
    plane.change({ hooli: "a 1" });
    await until(() => expect(plane.asked.at(-1)?.revision).toBe(2));
    expect(of(lines, "table.not-written").length).toBeGreaterThan(1);
    const text = await metricsOf(router);
    expect(text).toMatch(/cellfleet_router_table_not_written_total [1-9]/);
    expect(text).toMatch(/cellfleet_router_table_revision 2/);
    expect(text).toMatch(/cellfleet_router_table_stored_revision 0/);
  });

  test("on a disk that fills up while a table comes takes the next one", async () => {
    await mkdir(join(bench.dir(), "state"));
    // Each write says ENOSPC, until the half-written file is taken away.
    await symlink("/dev/full", join(bench.dir(), "state", "table.ndjson.new"));
    const { router, lines } = await startFleet();
    await until(async () =>
      expect(await metricsOf(router)).toMatch(/cellfleet_router_table_stored_revision 1/),
    );
    expect(of(lines, "table.not-written")).toMatchObject([{ code: "ENOSPC" }]);
    expect(of(lines, "sync.failed")).toEqual([]);
  });

  test("has what is served: the stored revision follows", async () => {
    const { router, plane } = await startFleet();
    plane.change({ hooli: "a 1" });
    await until(async () =>
      expect(await metricsOf(router)).toMatch(/cellfleet_router_table_stored_revision 2/),
    );
    expect(await metricsOf(router)).toMatch(/cellfleet_router_table_not_written_total 0/);
  });
});
