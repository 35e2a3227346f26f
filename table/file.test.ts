/** The table on disk: back after a restart, and refused when it is not what was written. */
import { appendFile, mkdir, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { describe, expect, test, vi } from "vitest";
import { hashAlias } from "../contract/alias.ts";
import { defaultKeyspace, parseTenantId } from "../contract/ids.ts";
import type { AliasGroup } from "../contract/routing-table.ts";
import { must } from "../runtime/assert.ts";
import { createVerifier } from "../runtime/signing.ts";
import { createTableFolder } from "./file.fixture.ts";
import { TableFile } from "./file.ts";
import { readSnapshot } from "./read.ts";
import { deltaOf, keys, otherSigner, snapshotOf, tableOf } from "./table.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const verifier = createVerifier(keys.publicKeys);
const { dir, path, write, writeSeven, restore } = createTableFolder();

async function* from(bytes: Buffer) {
  yield bytes;
}

describe("after a restart", () => {
  test("snapshot and journal together are the table that was served", async () => {
    const table = await writeSeven();
    const restored = await restore();
    expect(restored).toMatchObject({ kind: "restored" });
    if (restored.kind !== "restored") return;
    expect(restored.table.revision).toBe(7);
    expect(restored.table.checksum).toBe(table.checksum);
  });

  test("names of tenants come back with snapshot and journal", async () => {
    const aliasing = { salt: "00".repeat(16), namespaces: [{ name: "email", fold: true }] };
    const table = tableOf(5, { acme: "a 1" }, {}, "fleet-1", { aliasing });
    const named = (name: string) => [
      {
        alias: "email",
        keyspace: defaultKeyspace,
        names: [[hashAlias(aliasing.salt, "email", name), must(parseTenantId("acme"), "id")]],
      } satisfies AliasGroup,
    ];
    for (const group of named("ann@example.com")) expect(table.load(group)).toBeUndefined();
    const file = await write(table);
    const change = {
      aliasUpserts: named("bob@example.com"),
      aliasDeletes: named("ann@example.com"),
    };
    const delta = deltaOf(table, {}, [], undefined, change);
    const restoredBefore = await restore();
    expect(table.apply(JSON.parse(delta.body))).toBeUndefined();
    await file.append(delta, table);
    await file.close();
    const restoredAfter = await restore();
    if (restoredBefore.kind !== "restored" || restoredAfter.kind !== "restored") {
      throw new Error(JSON.stringify([restoredBefore, restoredAfter]));
    }
    expect(restoredBefore.table.resolve("email", "ANN@example.com")).toHaveLength(1);
    expect(restoredAfter.table.resolve("email", "ann@example.com")).toEqual([]);
    expect(restoredAfter.table.resolve("email", "bob@example.com")).toHaveLength(1);
    expect(restoredAfter.table.checksum).toBe(table.checksum);
  });

  test("a snapshot that lost its names is refused", async () => {
    const aliasing = { salt: "00".repeat(16), namespaces: [{ name: "email", fold: true }] };
    const table = tableOf(5, { acme: "a 1" }, {}, "fleet-1", { aliasing });
    const names: AliasGroup["names"] = [["A".repeat(22), must(parseTenantId("acme"), "id")]];
    const group = { alias: "email", keyspace: defaultKeyspace, names };
    // What the head promises and what follows are signed together, so this is the publisher's fault.
    const lying = snapshotOf(table, undefined, { aliases: 1 });
    expect(await readSnapshot(from(lying), verifier, [1, 2])).toMatchObject({ reason: "corrupt" });
    expect(table.load(group)).toBeUndefined();
    const whole = await readSnapshot(from(snapshotOf(table)), verifier, [1, 2]);
    expect(whole).toMatchObject({ aliasCount: 1, checksum: table.checksum });
  });

  test("an empty folder is no mistake", async () => {
    expect(await restore()).toEqual({ kind: "absent" });
  });

  test("a line that was being written at a crash is forgotten, and the journal goes on", async () => {
    const table = await writeSeven();
    const next = deltaOf(table, { hooli: "a 1" });
    await appendFile(path("journal.ndjson"), JSON.stringify(next).slice(0, 40));
    const file = new TableFile(dir(), verifier, [1, 2]);
    const restored = await file.restore();
    if (restored.kind !== "restored") throw new Error("refused");
    restored.table.apply(JSON.parse(next.body));
    await file.append(next, restored.table);
    await file.close();
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 8 } });
  });

  test("a new snapshot takes the journal's place", async () => {
    const table = await writeSeven();
    const file = await write(table);
    await file.close();
    expect(await readdir(dir())).not.toContain("journal.ndjson");
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 7 } });
  });

  test("a journal of before the snapshot, left by a crash, is passed over", async () => {
    const table = await writeSeven();
    const journal = await readFile(path("journal.ndjson"));
    await (await write(table)).close();
    await writeFile(path("journal.ndjson"), journal);
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 7 } });
  });

  test("a change that the disk did not take is followed by a snapshot, never by another change", async () => {
    const table = tableOf(5, { acme: "a 1" });
    const file = await write(table);
    await mkdir(path("journal.ndjson"));
    const apply = async (tenant: string) => {
      const delta = deltaOf(table, { [tenant]: "a 1" });
      table.apply(JSON.parse(delta.body));
      await file.append(delta, table);
    };
    await expect(apply("globex")).rejects.toThrow(/EISDIR/);
    await rmdir(path("journal.ndjson"));
    await expect(apply("initech")).rejects.toThrow(/lacks an earlier change/);
    expect(file.wantsSnapshot).toBe(true);
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 5 } });
    const writer = await file.beginSnapshot();
    await writer.write(snapshotOf(table));
    await writer.commit(table);
    await apply("hooli");
    await file.close();
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 8 } });
  });

  test("the time of an answer is written at most once in ten seconds, with each change besides", async () => {
    const table = tableOf(5, { acme: "a 1" });
    const file = await write(table);
    const written = async () => JSON.parse(await readFile(path("seen.json"), "utf8")).heardAtMs;
    const start = 1_700_000_000_000;
    for (const [afterMs, expected] of [
      [0, 0],
      [8000, 0],
      [9999, 0],
      [10_000, 10_000],
      // The clock was set back.
      [-3_600_000, -3_600_000],
    ] as const) {
      await file.heard(table, start + afterMs);
      expect(await written()).toBe(start + expected);
      expect(file.heardAtMs).toBe(start + afterMs);
    }
    await file.heard(table, start - 3_599_000);
    const delta = deltaOf(table, { acme: "b 2" });
    expect(table.apply(JSON.parse(delta.body))).toBeUndefined();
    await file.append(delta, table);
    expect(await written()).toBe(start - 3_599_000);
    await file.close();
    const again = new TableFile(dir(), verifier, [1, 2]);
    await again.restore();
    expect(again.heardAtMs).toBe(start - 3_599_000);
  });

  test("the journal grows only so long", async () => {
    const table = tableOf(5, { acme: "a 1" });
    const file = await write(table);
    expect(file.wantsSnapshot).toBe(false);
    const many = Object.fromEntries([...Array(9000).keys()].map((nth) => [`t${nth}`, "a 1"]));
    for (let nth = 0; nth < 12 && !file.wantsSnapshot; nth += 1) {
      const delta = deltaOf(table, many);
      table.apply(JSON.parse(delta.body));
      await file.append(delta, table);
    }
    expect(file.wantsSnapshot).toBe(true);
    await (await file.beginSnapshot()).discard();
    await file.close();
  });
});

describe("a file is refused that", () => {
  const edit = async (name: string, change: (text: string) => string) =>
    writeFile(path(name), change(await readFile(path(name), "utf8")));

  test.each([
    [
      "has one changed tenant",
      "corrupt",
      7,
      () => edit("table.ndjson", (text) => text.replace("globex", "globez")),
    ],
    [
      "has one changed digit in its head",
      "corrupt",
      7,
      () => edit("table.ndjson", (text) => text.replace('"revision":5', '"revision":9')),
    ],
    [
      "is cut off in a line",
      "corrupt",
      7,
      () => edit("table.ndjson", (text) => text.slice(0, -10)),
    ],
    [
      "is cut off between lines",
      "corrupt",
      7,
      () =>
        edit("table.ndjson", (text) => text.slice(0, text.lastIndexOf("\n", text.length - 2) + 1)),
    ],
    ["is empty", "corrupt", 7, () => edit("table.ndjson", () => "")],
    ["goes on behind its end", "corrupt", 7, () => edit("table.ndjson", (text) => `${text}{}\n`)],
    ["is noise", "corrupt", 7, () => edit("table.ndjson", () => "\u0000\u0001\n")],
    [
      "has a changed journal",
      "unsigned",
      6,
      () => edit("journal.ndjson", (text) => text.replace("initech", "initecj")),
    ],
    [
      "has a journal with a gap",
      "corrupt",
      5,
      () => edit("journal.ndjson", (text) => text.slice(text.indexOf("\n") + 1)),
    ],
    [
      "has noise in its journal",
      "corrupt",
      7,
      () => edit("journal.ndjson", (text) => `x\n${text}`),
    ],
    [
      "lost the end of its journal",
      "older",
      null,
      () => edit("journal.ndjson", (text) => text.slice(0, text.indexOf("\n") + 1)),
    ],
    ["lost its journal", "older", null, () => rm(path("journal.ndjson"))],
    [
      "was replaced by an older one",
      "older",
      null,
      () =>
        writeFile(path("table.ndjson"), snapshotOf(tableOf(3, { acme: "a 1" }))).then(() =>
          rm(path("journal.ndjson")),
        ),
    ],
    [
      "is signed by somebody else",
      "unsigned",
      7,
      () => writeFile(path("table.ndjson"), snapshotOf(tableOf(9, { acme: "a 1" }), otherSigner)),
    ],
    [
      "is of another fleet",
      "other-fleet",
      null,
      () => writeFile(path("table.ndjson"), snapshotOf(tableOf(9, {}, {}, "fleet-2"))),
    ],
    ["is gone", "missing", 7, () => rm(path("table.ndjson"))],
    [
      "is a folder",
      "unreadable",
      7,
      () => rm(path("table.ndjson")).then(() => mkdir(path("table.ndjson"))),
    ],
    [
      "has a folder in its journal's place",
      "unreadable",
      5,
      () => rm(path("journal.ndjson")).then(() => mkdir(path("journal.ndjson"))),
    ],
  ])("%s", async (name, reason, serves, damage) => {
    await writeSeven();
    await damage();
    const before = await readdir(dir());
    const restored = await restore();
    if (serves === null) expect(restored).toMatchObject({ kind: "refused", reason });
    else {
      const damaged = { reason, text: expect.stringContaining(`revision ${serves} serves on`) };
      expect(restored).toMatchObject({ kind: "restored", damaged, table: { revision: serves } });
      expect(restored).toMatchObject({
        damaged: { text: expect.stringContaining("revision 7 was served before") },
      });
    }
    expect(await readdir(dir())).toEqual(before);
    const isOfJournal = name.includes("journal");
    if (serves === null || isOfJournal) return;
    // A snapshot that stands alone is refused as before.
    await rm(path("table.previous.ndjson"));
    expect(await restore()).toMatchObject({ kind: "refused", reason });
  });

  test("stands in the way of nothing: it is kept aside when a good table comes", async () => {
    await writeSeven();
    await edit("table.ndjson", (text) => text.replace("globex", "globez"));
    const bad = await readFile(path("table.ndjson"), "utf8");
    for (const revision of [8, 9]) {
      const file = await write(tableOf(revision, { acme: "b 2" }));
      await file.close();
    }
    expect(await readFile(path("table.ndjson.refused-1"), "utf8")).toBe(bad);
    expect((await readdir(dir())).sort()).toEqual([
      ...["journal.ndjson.refused-1", "seen.json", "table.ndjson", "table.ndjson.refused-1"],
      "table.previous.ndjson",
    ]);
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 9 } });
  });
});
