/**
 * All workers of a router are replaced while clients keep asking: does a request fail? Router and
 * clients are processes of their own; the cell is a plain server in this one.
 *
 *   npm run bench -- restart [KEPT] [NEW] [TUNNELS] [ROUNDS]      (1000 20 100 2)
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { startClients } from "../router/workers/steady-clients.fixture.ts";
import { must } from "../runtime/assert.ts";

const entry = resolve(import.meta.dirname, "..", "cli", "main.ts");
/** So many clients of one address and one tenant are no attack here. */
const room = [
  ...["--clients-per-ip-max", "40000", "--clients-max", "40000", "--inflight-max", "40000"],
  ...["--tenant-inflight-max", "0", "--connections-max", "2000", "--pending-max", "20000"],
  ...["--cell-inflight-max", "20000", "--cell-pending-max", "20000", "--access-log", "off"],
  ...["--drain-delay-ms", "0", "--drain-announce-ms", "5000", "--drain-ms", "15000"],
];
const workersSchema = z.object({ items: z.array(z.object({ worker: z.number() })) });

export async function run(args: readonly string[]): Promise<void> {
  const [kept = 1000, fresh = 20, tunnels = 100, rounds = 2] = args.map(Number);
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-restart-"));
  const app = await startApp();
  const router = await startRouter(folder, app);
  try {
    const clients = startClients({ port: router.port, tenant: "acme", kept, fresh, tunnels });
    await sleep(3000);
    for (let round = 1; round <= rounds; round += 1) {
      const startedMs = performance.now();
      await restart(router.admin);
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      tell(
        `round ${round}: ${seconds} s, ${clients.answered()} requests answered, ${clients.tunnels()} tunnels opened, ${clients.failures.length} failures`,
      );
    }
    await clients.stop();
    tell(`${kept} kept connections, ${fresh} new ones at a time, ${tunnels} tunnels`);
    tell(`${clients.answered()} requests answered, ${clients.failures.length} failures`);
    for (const failure of new Set(clients.failures)) tell(`  ${failure}`);
    if (clients.failures.length > 0) process.exitCode = 1;
  } finally {
    await router.stop();
    app.closeAllConnections();
    app.close();
    await rm(folder, { recursive: true, force: true });
  }
}

const tell = (line: string) => void process.stdout.write(`${line}\n`);

async function startApp(): Promise<Server> {
  const app = createServer((_req, res) => res.end("ok"));
  app.keepAliveTimeout = 65_000;
  app.on("upgrade", (req, socket) => {
    const key = `${req.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash("sha1").update(key).digest("base64");
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.end());
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    socket.resume();
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  return app;
}

async function startRouter(folder: string, app: Server) {
  const table = join(folder, "table.json");
  const { port } = app.address() as AddressInfo;
  const endpoints = [`http://127.0.0.1:${port}`];
  await writeFile(table, JSON.stringify({ cells: { a: { endpoints } }, tenants: { acme: "a" } }));
  const workers = String(Math.max(2, cpus().length));
  const where = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--table", table];
  const child = spawn(
    process.execPath,
    [entry, "router", ...where, "--workers", workers, ...room],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const started = await new Promise<Record<string, unknown>>((found) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const event: Record<string, unknown> = JSON.parse(line);
      if (event["event"] === "router.started") found(event);
    });
  });
  const portOf = (address: unknown) => Number(must(/\d+$/.exec(String(address)), "a port")[0]);
  return {
    port: portOf(started["listen"]),
    admin: `http://127.0.0.1:${portOf(started["admin"])}`,
    stop: async () => {
      child.kill("SIGTERM");
      child.kill("SIGINT");
      if (child.exitCode === null) await once(child, "exit");
    },
  };
}

/** Resolves when no worker of before is left. */
async function restart(admin: string): Promise<void> {
  const list = async () => {
    const { items } = workersSchema.parse(await (await fetch(`${admin}/workers`)).json());
    return items.map(({ worker }) => worker);
  };
  const before = new Set(await list());
  await fetch(`${admin}/workers/restart`, { method: "POST" });
  while ((await list()).some((worker) => before.has(worker))) await sleep(100);
}
