/** Loads a snapshot as a router does, in a process of its own, and looks tenants up. */
import { createReadStream, readFileSync } from "node:fs";
import { defaultKeyspace, parseTenantId, type TenantId } from "../contract/ids.ts";
import type { TableState } from "../contract/table-state.ts";
import { must } from "../runtime/assert.ts";
import { createVerifier, publicKeysSchema } from "../runtime/signing.ts";
import { readSnapshot } from "../table/read.ts";
import { mebibytes, print, seconds } from "./fleet-processes.ts";

const [file = "", trust = "", count = "0"] = process.argv.slice(2);
const lookups = 1_000_000;

const held = (): number => {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

const verifier = createVerifier(publicKeysSchema.parse(JSON.parse(readFileSync(trust, "utf8"))));
const before = held();
const start = performance.now();
const table = await readSnapshot(
  createReadStream(file, { highWaterMark: 1024 * 1024 }),
  verifier,
  [1, 2],
);
if ("kind" in table) throw new Error(table.text);
const loadedMs = performance.now() - start;
print(
  "router's loader, from disk",
  seconds(loadedMs),
  `${table.size.toLocaleString("en")} placements`,
);
const bytes = held() - before;
print(
  "table in memory",
  mebibytes(bytes),
  `${(bytes / table.size).toFixed(0)} bytes per placement`,
);
lookUp("lookups, random tenants", table, (at) => `tenant-${(at * 7919) % Number(count)}`);
lookUp("lookups, unknown tenants", table, (at) => `nobody-${at}`);

/** Ids are made before: what is timed is the table. */
function lookUp(name: string, from: TableState, idOf: (at: number) => string): void {
  const ids: TenantId[] = [];
  for (let at = 0; at < lookups; at += 1) ids.push(must(parseTenantId(idOf(at)), "tenant id"));
  for (const id of ids.slice(0, 10_000)) from.lookup(defaultKeyspace, id);
  let found = 0;
  const begin = performance.now();
  for (const id of ids) if (from.lookup(defaultKeyspace, id) !== undefined) found += 1;
  const ms = performance.now() - begin;
  const rate = Math.round(lookups / (ms / 1000)).toLocaleString("en");
  const each = `${((ms * 1e6) / lookups).toFixed(0)} ns each, ${found.toLocaleString("en")} found`;
  print(name, `${rate}/s`, each);
}
