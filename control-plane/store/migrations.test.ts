/** The tables in code and the migrations that make them say the same: a change of one needs the other. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { generateDrizzleJson, generateMigration } from "drizzle-kit/api";
import { expect, test } from "vitest";
import * as schema from "./schema.ts";
import * as adoption from "./schema-adoption.ts";
import * as failover from "./schema-failover.ts";
import * as moves from "./schema-moves.ts";
import * as recovery from "./schema-recovery.ts";
import * as safety from "./schema-safety.ts";
import * as salvage from "./schema-salvage.ts";
import * as slo from "./schema-slo.ts";
import * as standby from "./schema-standby.ts";

const parts = [schema, adoption, failover, moves, recovery, safety, salvage, slo, standby];

const folder = join(import.meta.dirname, "migrations");

test("no migration is missing: npx drizzle-kit generate would write nothing", async () => {
  const last = readdirSync(join(folder, "meta"))
    .filter((name) => name.endsWith("_snapshot.json"))
    .toSorted()
    .at(-1);
  const before = JSON.parse(readFileSync(join(folder, "meta", last ?? ""), "utf8"));
  const tables = Object.assign({}, ...parts);
  expect(await generateMigration(before, generateDrizzleJson(tables))).toEqual([]);
});

test("migrations are applied in the order of their names, each exactly once in the journal", () => {
  const journal = JSON.parse(readFileSync(join(folder, "meta", "_journal.json"), "utf8"));
  const tags = journal.entries.map(({ tag }: { tag: string }) => tag);
  const files = readdirSync(folder).filter((name) => name.endsWith(".sql"));
  expect(tags).toEqual(files.toSorted().map((name) => name.replace(/\.sql$/, "")));
  const times = journal.entries.map(({ when }: { when: number }) => when);
  expect(times).toEqual(times.toSorted((a: number, b: number) => a - b));
});
