/** One step of `table.ts` in a process of its own: `make`, `read` or `serve` FOLDER TENANTS IDS. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import {
  cellIdSchema,
  defaultKeyspace,
  epochOne,
  parseTenantId,
  revisionSchema,
  type TenantId,
} from "../contract/ids.ts";
import type { PlacementGroup } from "../contract/routing-table.ts";
import { startTable, type TableState } from "../contract/table-state.ts";
import { must } from "../runtime/assert.ts";
import {
  createSigner,
  createVerifier,
  generateKey,
  publicKeysSchema,
  signaturePurposes,
} from "../runtime/signing.ts";
import { TableFile } from "../table/file.ts";
import { imageKeyOf } from "../table/image-key.ts";
import { mebibytes, print, seconds } from "./fleet-processes.ts";

const [step = "", folder = "", count = "0", ids = "short"] = process.argv.slice(2);
const tenants = Number(count);
const cells = 200;
const groupSize = 10_000;
const batch = 20_000;
const batches = 60;
const warmUp = 10;
const changes = 100_000;

/** A new string each time, as a header's value is one. */
function idOf(nth: number): TenantId {
  const text = ids === "uuid" ? uuidOf(nth) : `t-${nth}`;
  return must(parseTenantId(Buffer.from(text, "latin1").toString("latin1")), "tenant id");
}

function uuidOf(nth: number): string {
  const hex = createHash("md5").update(String(nth)).digest("hex");
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return `${parts.join("-")}-${hex.slice(20)}`;
}

function groupAt(from: number): PlacementGroup {
  const values: TenantId[] = [];
  for (let nth = from; nth < Math.min(from + groupSize, tenants); nth += 1) values.push(idOf(nth));
  const cell = cellIdSchema.parse(`cell-${(from / groupSize) % cells}`);
  return {
    keyspace: defaultKeyspace,
    kind: "tenant",
    cell,
    epoch: epochOne,
    state: "active",
    values,
  };
}

/** A signed snapshot, as a control plane would have sent it. */
async function make(): Promise<void> {
  const { publicKeys, privateKey } = generateKey("bench");
  const signer = createSigner(privateKey);
  const keyspaces = [{ name: defaultKeyspace, strategy: "directory", guardMode: "row" } as const];
  const lists = { tenantSources: [], serviceRoutes: [], keyspaces, cells: [] };
  const head = { fleet: "bench", revision: revisionSchema.parse(1), ...lists };
  const table = startTable(head);
  if ("kind" in table) throw new Error(table.text);
  const hash = createHash("sha256");
  const file = await open(join(folder, "table.ndjson"), "w");
  const write = async (value: object) => {
    const line = `${JSON.stringify(value)}\n`;
    hash.update(line);
    await file.writeFile(line);
  };
  const start = performance.now();
  await write({ kind: "cellfleet.routing-table", version: 1, ...head, placements: tenants });
  for (let from = 0; from < tenants; from += groupSize) {
    const group = groupAt(from);
    const problem = table.load(group);
    if (problem !== undefined) throw new Error(problem.text);
    await write(group);
  }
  while (!table.settle());
  const digest = hash.digest("hex");
  const signature = signer.sign(signaturePurposes.routingTable, digest);
  const tail = { digest, checksum: table.checksum, keyId: signer.keyId, signature };
  await file.writeFile(`${JSON.stringify(tail)}\n`);
  await file.close();
  writeFileSync(join(folder, "trust.json"), JSON.stringify(publicKeys));
  print("made and written as a snapshot", seconds(performance.now() - start));
}

function openFile(): TableFile {
  const trust = publicKeysSchema.parse(
    JSON.parse(readFileSync(join(folder, "trust.json"), "utf8")),
  );
  const image = { key: imageKeyOf("bench"), tenantsMin: 1 };
  return new TableFile(folder, createVerifier(trust), [1, 2], image);
}

async function restore(
  file: TableFile,
): Promise<{ readonly table: TableState; readonly ms: number }> {
  const start = performance.now();
  const restored = await file.restore();
  if (restored.kind !== "restored") throw new Error(JSON.stringify(restored));
  return { table: restored.table, ms: performance.now() - start };
}

const peak = (): string => `${mebibytes(process.resourceUsage().maxRSS * 1024)} resident at most`;

/** From the signed snapshot; and the image for the next start is written. */
async function read(): Promise<void> {
  const file = openFile();
  const { table, ms } = await restore(file);
  print("read from the signed snapshot", seconds(ms), peak());
  const start = performance.now();
  await file.keepCopies(table);
  print("image written", seconds(performance.now() - start));
  await file.close();
}

/** From the image; then asked and changed. */
async function serve(): Promise<void> {
  const file = openFile();
  const { table, ms } = await restore(file);
  print("read from the image", seconds(ms), peak());
  if (table.size !== tenants) throw new Error(`${table.size} tenants`);
  const perTenant = `${(table.bytes / tenants).toFixed(1)} bytes per tenant`;
  print("memory of the table", mebibytes(table.bytes), perTenant);
  const random = (below: number) => Math.floor(Math.random() * below);
  const hot = Math.ceil(tenants / 100);
  lookUp("lookups, any tenant", table, () => idOf(random(tenants)));
  lookUp("lookups, 90 % in 1 %", table, () => idOf(random(Math.random() < 0.9 ? hot : tenants)));
  lookUp("lookups, unknown", table, () => idOf(tenants + random(tenants)));
  globalThis.gc?.();
  const start = performance.now();
  globalThis.gc?.();
  const { rss } = process.memoryUsage();
  print(
    "full collection",
    `${(performance.now() - start).toFixed(1)} ms`,
    `${mebibytes(rss)} resident`,
  );
  change(table);
  lookUp("lookups, any, after that", table, () => idOf(random(tenants)));
  await file.close();
}

/**
 * Ids are made before: what is timed is the table. First the mean of the time that this thread had a
 * processor, because others use this machine, too; then what the clock on the wall says per batch.
 */
function lookUp(name: string, table: TableState, next: () => TenantId): void {
  const wall: number[] = [];
  let cpu = 0;
  let found = 0;
  for (let nth = -warmUp; nth < batches; nth += 1) {
    const asked = Array.from({ length: batch }, next);
    const start = performance.now();
    const before = process.threadCpuUsage();
    let hits = 0;
    for (const id of asked) if (table.lookup(defaultKeyspace, id) !== undefined) hits += 1;
    const { user, system } = process.threadCpuUsage(before);
    if (nth < 0) continue;
    cpu += user + system;
    found += hits;
    wall.push(((performance.now() - start) * 1e6) / batch);
  }
  wall.sort((a, b) => a - b);
  const at = (share: number) => `${must(wall[Math.floor(batches * share)], "batch").toFixed(0)} ns`;
  const mean = ((cpu * 1000) / (batch * batches)).toFixed(0);
  const share = Math.round((found * 100) / (batch * batches));
  print(name, `${mean} ns`, `wall p10 ${at(0.1)}, p50 ${at(0.5)}, ${share} % found`);
}

/** Deltas of one placement, enough of them that images are merged meanwhile. */
function change(table: TableState): void {
  const { generation } = table;
  const cell = cellIdSchema.parse("elsewhere");
  const all: number[] = [];
  for (let nth = 0; nth < changes; nth += 1) {
    const values = [idOf(Math.floor(Math.random() * tenants))];
    const group = {
      keyspace: defaultKeyspace,
      kind: "tenant",
      cell,
      epoch: epochOne,
      values,
    } as const;
    const to = revisionSchema.parse(table.revision + 1);
    const upserts = [{ ...group, state: "active" as const }];
    const delta = { fleet: table.fleet, from: table.revision, to, upserts, deletes: [] };
    const checksum = table.checksumAfter(delta);
    if (typeof checksum !== "string") throw new Error(checksum.text);
    const start = performance.now();
    table.apply({ ...delta, checksum });
    all.push(performance.now() - start);
  }
  all.sort((a, b) => a - b);
  const ms = (share: number) =>
    `${must(all[Math.floor((changes - 1) * share)], "change").toFixed(3)} ms`;
  const images = `${table.generation - generation} new images`;
  print("changes, one by one", `${ms(0.5)} each`, `p99 ${ms(0.99)}, longest ${ms(1)}, ${images}`);
}

const steps: Readonly<Record<string, () => Promise<void>>> = { make, read, serve };
await must(steps[step], "step")();
