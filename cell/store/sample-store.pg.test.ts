/** The sample application's own schema and manifest: every table is classed and guarded, its roles harmless. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openClient, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readStoreCatalog } from "./catalog.ts";
import { findGaps } from "./coverage.ts";
import { readLowRanges } from "./id-ranges.ts";
import { installPack } from "./install.ts";
import { parseManifest } from "./manifest.ts";
import { protectTable } from "./protect.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const fileOf = (name: string) =>
  readFileSync(new URL(`../sample/${name}`, import.meta.url), "utf8");

test("protecting what its manifest names leaves no finding", async () => {
  const admin = await openClient(await server.createDatabase("sample"));
  await installPack(admin, { ...storeRoles, cellId: "cell-01" });
  await admin.query(`grant create on schema public to ${storeRoles.appOwnerRole}`);
  await admin.query(`set role ${storeRoles.appOwnerRole}`);
  await admin.query(fileOf("schema.sql"));
  const manifest = parseManifest(fileOf("cellfleet.schema.yaml"));
  const gaps = async () =>
    findGaps(manifest, await readStoreCatalog(admin, storeRoles.appRole), storeRoles.appRole);
  expect((await gaps()).map(({ code }) => code)).toContain("GUARD_MISSING");
  for (const table of manifest.tables) {
    if (table.class !== "tenant") continue;
    await protectTable(admin, table);
    await admin.query(
      `grant select, insert, update, delete on ${table.schema}.${table.table} to ${storeRoles.appRole}`,
    );
  }
  await admin.query("reset role");
  expect(await gaps()).toEqual([]);
  const low = await readLowRanges(admin);
  expect(low.map(({ sequence }) => sequence)).toEqual([
    "public.orders_id_seq",
    "public.outbox_id_seq",
  ]);
  await admin.query(`alter role ${storeRoles.appRole} password '${server.password}'`);
  const app = await openClient(server.url("sample", storeRoles.appRole));
  const insert = "insert into idempotency (tenant_id, key, request_hash) values ('acme', 'k', 'h')";
  expect(await refusalOf(app.query(insert))).toBe("CF001");
  await Promise.all([admin.end(), app.end()]);
});
