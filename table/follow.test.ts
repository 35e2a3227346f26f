/** Following the table without a router: what a cell's agent does to resolve tenants and names. */
import { mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { hashAlias } from "../contract/alias.ts";
import { defaultKeyspace, parseTenantId } from "../contract/ids.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { createVerifier } from "../runtime/signing.ts";
import type { TableEvent } from "./events.ts";
import { followTable } from "./follow.ts";
import { keys, startControlPlane, tableOf } from "./table.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

let dir = "";
const closers: Array<() => Promise<unknown>> = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "cellfleet-follow-"));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  await rm(dir, { recursive: true, force: true });
});
const until = <T>(check: () => T | Promise<T>) =>
  vi.waitFor(check, { timeout: 25_000, interval: 10 });

const salt = "cd".repeat(16);
const acme = must(parseTenantId("acme"), "tenant id");
async function startPlane() {
  const aliasing = { salt, namespaces: [{ name: "email", fold: true }] };
  const plane = await startControlPlane(
    tableOf(1, { acme: "a 1" }, { a: ["http://127.0.0.1:9"] }, "fleet-1", { aliasing }),
  );
  closers.push(plane.close);
  return plane;
}

async function follow(url: string) {
  const events: TableEvent[] = [];
  const changes: number[] = [];
  const followed = await followTable({
    ...{ url, token: "t", id: "cell-01", path: "/v1/machine/agent/table-sync" },
    ...{ stateDir: join(dir, "table"), verifier: createVerifier(keys.publicKeys) },
    ...{ clock: systemClock, random: systemRandom },
    onChange: (table) => changes.push(table.revision),
    onEvent: (event) => events.push(event),
  });
  closers.push(followed.close);
  return { followed, events, changes };
}

test("an agent follows on its own path, and resolves when the control plane is gone", async () => {
  const plane = await startPlane();
  const { followed, changes } = await follow(plane.url);
  expect(followed.view()).toBeUndefined();
  expect(followed.ageMs()).toBeUndefined();
  expect(plane.asked).toEqual([]);
  followed.start();
  await until(() => expect(followed.view()?.revision).toBe(1));
  const hash = hashAlias(salt, "email", "ann@example.com");
  plane.changeNames({
    aliasUpserts: [{ alias: "email", keyspace: defaultKeyspace, names: [[hash, acme]] }],
  });
  await until(() => expect(plane.asked.at(-1)?.revision).toBe(2));
  expect(new Set(plane.paths)).toEqual(new Set(["/v1/machine/agent/table-sync"]));
  expect(plane.asked.at(-1)).toMatchObject({ router: "cell-01", admin: "", seen: [] });
  expect(changes).toEqual([1, 2]);
  await followed.close();
  await plane.close();

  const again = await follow(plane.url);
  expect(again.events).toMatchObject([{ kind: "applied", by: "file", from: null }]);
  expect(again.followed.view()?.resolve("email", "ANN@example.com")).toEqual([
    { keyspace: defaultKeyspace, tenant: acme },
  ]);
  again.followed.start();
  await until(() =>
    expect(again.events.find(({ kind }) => kind === "sync-failed")).toMatchObject({
      first: true,
    }),
  );
  expect(again.followed.view()?.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "a" });
});

test("of a large table an image is kept; a damaged one is told of, and the signed files serve", async () => {
  const tenants = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, nth) => [`t${nth}`, "a 1"]),
  );
  const plane = await startControlPlane(tableOf(4, { acme: "b 1", ...tenants }));
  closers.push(plane.close);
  const image = join(dir, "table", "table.image");
  const first = await follow(plane.url);
  first.followed.start();
  const bytes = await until(() => readFile(image));
  await first.followed.close();

  const second = await follow(plane.url);
  expect(second.events).toMatchObject([{ kind: "applied", by: "file" }]);
  expect(second.followed.view()?.checksum).toBe(plane.table().checksum);
  await second.followed.close();

  const middle = bytes.length >> 1;
  bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
  await writeFile(image, bytes);
  const third = await follow(plane.url);
  expect(third.events).toMatchObject([
    { kind: "refused", reason: "corrupt", where: image },
    { kind: "applied", by: "file" },
  ]);
  expect(third.followed.view()?.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "b" });
  await third.followed.close();
  expect((await follow(plane.url)).events).toMatchObject([{ kind: "applied", by: "file" }]);
});

test("the age of a table counts from the last answer, across restarts", async () => {
  const plane = await startPlane();
  const first = await follow(plane.url);
  first.followed.start();
  await until(() => expect(plane.asked.at(-1)?.revision).toBe(1));
  await first.followed.close();
  await plane.close();

  const seen = join(dir, "table", "seen.json");
  const note = JSON.parse(await readFile(seen, "utf8"));
  const dayMs = 86_400_000;
  expect(Math.abs(Date.now() - note.heardAtMs)).toBeLessThan(dayMs);
  const ageOf = async (write: () => Promise<unknown>) => {
    await write();
    const { followed, events } = await follow(plane.url);
    const before = followed.ageMs();
    followed.start();
    await until(() => expect(events.some(({ kind }) => kind === "sync-failed")).toBe(true));
    const after = followed.ageMs();
    await followed.close();
    // Nobody answered: what is written stays as it was.
    return [before, after, JSON.parse(await readFile(seen, "utf8")).heardAtMs];
  };
  const write = (heardAtMs?: number) => () =>
    writeFile(seen, JSON.stringify({ ...note, heardAtMs }));

  const yesterday = note.heardAtMs - dayMs;
  const [before, after, written] = await ageOf(write(yesterday));
  expect(before).toBeGreaterThanOrEqual(dayMs);
  expect(after).toBeGreaterThanOrEqual(dayMs);
  expect(written).toBe(yesterday);
  // Of an earlier release: the file's own time stands in.
  const old = await ageOf(async () => {
    await write()();
    await utimes(seen, yesterday / 1000, yesterday / 1000);
  });
  expect(old[0]).toBeGreaterThanOrEqual(dayMs);
  // A clock that was set back makes nothing younger than new.
  const [ahead] = await ageOf(write(note.heardAtMs + 2 * dayMs));
  expect(ahead).toBeGreaterThanOrEqual(0);
});
