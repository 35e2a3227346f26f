/**
 * A million tenants: imported into a real control plane, applied by its cells, read by a real router.
 * Prints how long each takes, what the snapshot weighs, what router and control plane hold in memory,
 * and how many lookups a second the table answers.
 */
import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import { request } from "undici";
import { createdTokenSchema, importResultSchema } from "../contract/control-api.ts";
import {
  type BenchFleet,
  mebibytes,
  print,
  printLoad,
  seconds,
  startBenchFleet,
  untilReady,
} from "./fleet-processes.ts";

const tenantsDefault = 1_000_000;

export async function run(args: readonly string[]): Promise<void> {
  const tenants = Number(args[0] ?? tenantsDefault);
  if (!Number.isSafeInteger(tenants) || tenants < 1)
    throw new Error("usage: table --fleet [TENANTS]");
  const fleet = await startBenchFleet({ cells: 3, tenantsPerCellMax: tenants });
  try {
    print("tenants", tenants.toLocaleString("en"));
    await importAll(fleet, tenants);
    const file = await readSnapshot(fleet);
    await measureRouter(fleet);
    measureLookups(file, tenants, join(fleet.folder, "trust.json"));
    printLoad();
  } finally {
    await fleet.stop();
  }
}

function* lines(tenants: number): Generator<string> {
  let chunk = "";
  for (let at = 0; at < tenants; at += 1) {
    chunk += `{"id":"tenant-${at}"}\n`;
    if (chunk.length < 65_536) continue;
    yield chunk;
    chunk = "";
  }
  yield chunk;
}

async function importAll(fleet: BenchFleet, tenants: number): Promise<void> {
  const start = performance.now();
  const { statusCode, body } = await request(`${fleet.control.listen}/v1/tenants/import`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${fleet.secret}`,
      "content-type": "application/x-ndjson",
    },
    headersTimeout: 600_000,
    bodyTimeout: 600_000,
    body: Readable.from(lines(tenants)),
  });
  const text = await body.text();
  if (statusCode !== 202) throw new Error(`import: ${statusCode} ${text}`);
  const { op, accepted, perCell } = importResultSchema.parse(JSON.parse(text));
  print("import, until recorded", seconds(performance.now() - start), JSON.stringify(perCell));
  if (accepted !== tenants || op === null) throw new Error(`accepted ${accepted}`);
  await fleet.finish(op);
  print("import, until active everywhere", seconds(performance.now() - start));
  print("control plane, resident", mebibytes(await fleet.control.rss()), "after the import");
}

async function readSnapshot(fleet: BenchFleet): Promise<string> {
  const { secret } = await fleet.client.call({
    method: "POST",
    path: "/v1/tokens",
    body: { name: "bench", role: "router", subject: "bench" },
    schema: createdTokenSchema,
    timeoutMs: 10_000,
  });
  const file = join(fleet.folder, "snapshot.ndjson");
  for (const nth of ["first", "second"]) {
    const start = performance.now();
    const { body } = await request(`${fleet.control.listen}/v1/machine/routing-table`, {
      headers: { authorization: `Bearer ${secret}` },
    });
    const bytes = Buffer.from(await body.arrayBuffer());
    print(`snapshot, ${nth} reader`, seconds(performance.now() - start), mebibytes(bytes.length));
    await writeFile(file, bytes);
  }
  return file;
}

async function measureRouter(fleet: BenchFleet): Promise<void> {
  const start = performance.now();
  const router = await fleet.router("bench-router");
  const empty = await router.rss();
  print("router, from start until ready", seconds(await untilReady(router, start)));
  print("router, resident", mebibytes(await router.rss()), `${mebibytes(empty)} at its start`);
  await router.kill();
}

/** In a process of its own, so that its memory is the table's and nothing else's. */
function measureLookups(file: string, tenants: number, trust: string): void {
  const script = resolve(import.meta.dirname, "table-fleet-load.ts");
  const args = ["--expose-gc", script, file, trust, String(tenants)];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) throw new Error(`table-fleet-load ended with ${status}`);
}
