/**
 * What is fuzzed: a real router in this process, two recording cells behind it, and the ledger of what may
 * be seen by them.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRouterConfig } from "../../router/config.ts";
import type { RouterEvents } from "../../router/observe/events.ts";
import { startRouter } from "../../router/run.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { createLedger } from "./judge.ts";
import { startRecorder } from "./recorder.ts";

export type World = Awaited<ReturnType<typeof startWorld>>;

export async function startWorld(find: (what: string) => void) {
  const dir = await mkdtemp(join(tmpdir(), "cellfleet-fuzz-"));
  const ledger = createLedger(find);
  const recorders = await Promise.all(
    (["a", "b"] as const).map((cell) =>
      startRecorder(
        (key) => ledger.note(cell, key),
        (what) => find(`cell ${cell} was sent ${what}`),
      ),
    ),
  );
  const [a, b] = recorders.map(({ url }) => ({ endpoints: [url] }));
  const table = {
    cells: { a, b },
    tenants: { acme: "a", globex: "b" },
    tenantKey: [{ header: "x-tenant-id" }, { host: "{tenant}.cells.test" }],
  };
  await writeFile(join(dir, "table.json"), JSON.stringify(table));
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: "warn",
    write: (line) => {
      if (line.includes("router.trouble")) find(`the router says: ${line}`);
    },
  });
  const any = "127.0.0.1:0";
  const config = parseRouterConfig({
    ...{ listen: any, h2c: any, admin: any, table: join(dir, "table.json"), accessLog: "off" },
    // Node says nothing of bytes that break the body of a request with an upgrade: the guard of bodies does.
    bodyIdleMs: 1000,
    // Full at once, so that memory can be compared early.
    ...{ explainRequestsMax: 100, explainBytesMax: 100_000 },
    ...{ drainDelayMs: 0, drainAnnounceMs: 0, drainMs: 5000 },
  });
  const router = await startRouter({ config, log, token: "" });
  let closing: Promise<void> | undefined;
  const close = async () => {
    await router.close();
    await Promise.all(recorders.map((recorder) => recorder.close()));
    await rm(dir, { recursive: true, force: true });
  };
  return {
    port: router.port,
    h2cPort: must(router.h2cPort, "a port of HTTP/2"),
    ledger,
    recorders,
    /** Connections of cells that are open. */
    open: () => recorders.reduce((sum, { open }) => sum + open(), 0),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}
