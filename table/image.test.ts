/** The image beside the signed files: it is read in their place, and whatever is wrong with it, they serve. */
import { createHmac } from "node:crypto";
import { copyFile, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { hashAlias } from "../contract/alias.ts";
import { defaultKeyspace, parseTenantId } from "../contract/ids.ts";
import type { TableState } from "../contract/table-state.ts";
import { must } from "../runtime/assert.ts";
import { createVerifier } from "../runtime/signing.ts";
import { TableFile } from "./file.ts";
import { readImage } from "./image-file.ts";
import { imageFormat, prefixBytes, trailerBytes } from "./image-format.ts";
import { imageKeyOf } from "./image-key.ts";
import { deltaOf, keys, type Placements, snapshotOf, tableOf } from "./table.fixture.ts";

// A real disk on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const verifier = createVerifier(keys.publicKeys);
const key = imageKeyOf("token-1");
let dir = "";
const path = (name: string) => join(dir, name);
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "cellfleet-image-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const open = (by = key) => new TableFile(dir, verifier, [1, 2], { key: by, tenantsMin: 1 });
const idOf = (raw: string) => must(parseTenantId(raw), "tenant id");

/** Enough that most of them lie in the image proper and not among its changes. */
const many = (cell: string): Placements =>
  Object.fromEntries([...Array(5000).keys()].map((nth) => [`t${nth}`, `${cell} 1`]));
const salt = "00".repeat(16);
const lists = { aliasing: { salt, namespaces: [{ name: "email", fold: true }] } };

async function writeSnapshot(file: TableFile, table: TableState): Promise<void> {
  const writer = await file.beginSnapshot();
  await writer.write(snapshotOf(table));
  await writer.commit(table);
}

async function move(file: TableFile, table: TableState, upserts: Placements, deletes = [""]) {
  const delta = deltaOf(
    table,
    upserts,
    deletes.filter((id) => id !== ""),
  );
  expect(table.apply(JSON.parse(delta.body))).toBeUndefined();
  await file.append(delta, table);
}

/** Revision 5 as a snapshot, 6 in the image with it, 7 in the journal alone. */
async function writeSeven(): Promise<TableState> {
  const table = tableOf(5, many("a"), {}, "fleet-1", lists);
  const names: [string, ReturnType<typeof idOf>][] = [
    [hashAlias(salt, "email", "ann@example.com"), idOf("t1")],
  ];
  table.load({ alias: "email", keyspace: defaultKeyspace, names });
  const file = open();
  await file.restore();
  await writeSnapshot(file, table);
  await move(file, table, { t1: "b 2" }, ["t2"]);
  await file.keepCopies(table);
  await move(file, table, { fresh: "c 1" }, ["t3"]);
  await file.close();
  return table;
}

function expectSeven(table: TableState, wanted: TableState): void {
  expect([table.revision, table.checksum]).toEqual([7, wanted.checksum]);
  expect([table.size, table.aliasCount, table.epochMax]).toEqual([4999, 1, 2]);
  const cellOf = (id: string) => table.lookup(defaultKeyspace, idOf(id))?.cell;
  expect(["t1", "t2", "t3", "t4", "fresh", "other"].map(cellOf)).toEqual([
    ...["b", undefined, undefined, "a", "c", undefined],
  ]);
  expect(table.resolve("email", "Ann@example.com")).toHaveLength(1);
}

async function restored(by = key) {
  const found = await open(by).restore();
  if (found.kind !== "restored") throw new Error(JSON.stringify(found));
  return found;
}

test("image and journal together are the table that was served, and the snapshot is not read", async () => {
  const table = await writeSeven();
  const text = await readFile(path("table.ndjson"), "utf8");
  await writeFile(path("table.ndjson"), text.replace('"t4"', '"t5"'));
  const found = await restored();
  expectSeven(found.table, table);
  expect(found.image).toBeUndefined();
});

test("what came from an image moves on, is shared, and is written again", async () => {
  const table = await writeSeven();
  const file = open();
  const found = await file.restore();
  if (found.kind !== "restored") throw new Error("refused");
  await move(file, found.table, { t9: "d 3" });
  await file.close();
  await rm(path("table.image"));
  const second = await restored();
  expect(second.table.checksum).toBe(found.table.checksum);
  const again = open();
  await again.restore();
  await again.keepCopies(second.table);
  await again.close();
  await rm(path("journal.ndjson"));
  expect((await restored()).table.checksum).toBe(found.table.checksum);
  expect(found.table.checksum).not.toBe(table.checksum);
});

describe("an image is refused, and the signed files serve, when it", () => {
  const edit = async (change: (bytes: Buffer) => Uint8Array) =>
    writeFile(path("table.image"), change(await readFile(path("table.image"))));
  const headerEnd = (bytes: Buffer) => prefixBytes + bytes.readUInt32LE(16);
  const cut = (where: (bytes: Buffer) => number) => () =>
    edit((bytes) => bytes.subarray(0, where(bytes)));
  const flip = (where: (bytes: Buffer) => number) => () =>
    edit((bytes) => {
      bytes.writeUInt8(bytes.readUInt8(where(bytes)) ^ 1, where(bytes));
      return bytes;
    });
  /** As somebody would who knows the format and not the token. */
  const forge = () =>
    edit((bytes) => {
      const at = bytes.length - trailerBytes;
      const text = bytes.toString("latin1").replace('"cell":"b"', '"cell":"c"');
      const forged = Buffer.from(text, "latin1");
      forged.writeUInt32LE(crc32(forged.subarray(0, at)), at);
      const seal = createHmac("sha256", "guessed")
        .update(forged.subarray(0, at + 4))
        .digest();
      seal.copy(forged, at + 4);
      return forged;
    });

  test.each<[string, string, () => Promise<void>]>([
    ["is empty", "corrupt", cut(() => 0)],
    ["ends in its prefix", "corrupt", cut(() => 9)],
    ["ends behind its prefix", "corrupt", cut(() => prefixBytes)],
    ["ends in its header", "corrupt", cut((bytes) => headerEnd(bytes) - 5)],
    ["ends behind its header", "corrupt", cut(headerEnd)],
    ["ends among its tenants", "corrupt", cut((bytes) => bytes.length >> 1)],
    ["ends before its seal", "corrupt", cut((bytes) => bytes.length - trailerBytes)],
    ["lacks its last byte", "corrupt", cut((bytes) => bytes.length - 1)],
    ["goes on behind its end", "corrupt", () => edit((bytes) => Buffer.concat([bytes, bytes]))],
    ["is another kind of file", "corrupt", flip(() => 0)],
    ["is of another format", "invalid", flip(() => 8)],
    ["is of another byte order", "invalid", flip(() => 12)],
    ["has another length of header", "corrupt", flip(() => 16)],
    ["names another key", "unsigned", flip(() => 20)],
    ["has a changed header", "corrupt", flip((bytes) => prefixBytes + 3 + (bytes.length & 1))],
    ["has a changed tenant", "corrupt", flip((bytes) => bytes.length >> 1)],
    ["has a changed checksum", "corrupt", flip((bytes) => bytes.length - trailerBytes)],
    ["has a changed seal", "unsigned", flip((bytes) => bytes.length - 1)],
    ["was forged", "unsigned", forge],
  ])("%s", async (_name, reason, damage) => {
    const table = await writeSeven();
    await damage();
    const found = await restored();
    expect(found.image).toMatchObject({ kind: "refused", reason });
    expectSeven(found.table, table);
  });

  test("was sealed with another token", async () => {
    const table = await writeSeven();
    const found = await restored(imageKeyOf("token-2"));
    expect(found.image).toMatchObject({ reason: "unsigned" });
    expectSeven(found.table, table);
  });

  test("is older than the snapshot beside it", async () => {
    const table = await writeSeven();
    await copyFile(path("table.image"), path("kept"));
    const file = open();
    await file.restore();
    await writeSnapshot(file, table);
    await file.close();
    await rename(path("kept"), path("table.image"));
    // As after a power cut: nothing else remembers the revision.
    await rm(path("seen.json"));
    const found = await restored();
    expect(found.image).toMatchObject({ reason: "older" });
    expectSeven(found.table, table);
  });

  test("leads to less than what was served before", async () => {
    await writeSeven();
    await rm(path("journal.ndjson"));
    expect(await open().restore()).toMatchObject({ kind: "refused", reason: "older" });
  });

  test("stands alone serves, and the missing snapshot is told of", async () => {
    await writeSeven();
    await rm(path("table.ndjson"));
    expect(await open().restore()).toMatchObject({
      ...{ kind: "restored", table: { revision: 7 } },
      damaged: { reason: "missing" },
    });
  });

  test("leads to less than was served, when every signed file is damaged, serves all the same", async () => {
    await writeSeven();
    await rm(path("journal.ndjson"));
    for (const name of ["table.ndjson", "table.previous.ndjson"]) {
      const text = await readFile(path(name), "utf8");
      await writeFile(path(name), text.slice(0, -10));
    }
    const found = await open().restore();
    expect(found).toMatchObject({ kind: "restored", damaged: { reason: "corrupt" } });
    expect(found.image).toMatchObject({ reason: "older" });
  });

  test("is of another fleet", async () => {
    await writeSeven();
    await writeFile(path("seen.json"), JSON.stringify({ fleet: "fleet-2", revision: 1 }));
    const found = await open().restore();
    expect(found).toMatchObject({ kind: "refused", reason: "other-fleet" });
    expect(found.image).toMatchObject({ reason: "other-fleet" });
  });

  test("has any one bit changed, wherever", async () => {
    await writeSeven();
    const whole = await readFile(path("table.image"));
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: whole.length - 1 }),
        fc.integer({ min: 0, max: 7 }),
        async (at, bit) => {
          const damaged = Buffer.from(whole);
          damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << bit), at);
          await writeFile(path("damaged"), damaged);
          expect(await readImage(path("damaged"), key)).toMatchObject({ kind: "refused" });
        },
      ),
      { numRuns: 150 },
    );
    expect(await readImage(path("table.image"), key)).toMatchObject({ kind: "image" });
    expect(imageFormat).toBe(1);
  });
});

describe("a process that ends at any moment leaves", () => {
  /** Which of the files are the old ones (revision 7), and which those after the new snapshot (8). */
  test.each([
    ["nothing changed", ["image", "snapshot", "journal"], [], 7],
    ["no image yet", ["snapshot", "journal"], [], 7],
    ["the new snapshot with the old journal", ["journal"], ["snapshot"], 8],
    ["the new snapshot alone", [], ["snapshot"], 8],
    ["a new image half written", ["half"], ["snapshot"], 8],
    ["all that is new", [], ["image", "snapshot"], 8],
  ])("%s", async (_name, old, fresh, revision) => {
    const table = await writeSeven();
    const names = { image: "table.image", snapshot: "table.ndjson", journal: "journal.ndjson" };
    const keep = async (as: string) => {
      const there = await readdir(dir);
      for (const [kind, name] of Object.entries(names)) {
        if (there.includes(name)) await copyFile(path(name), path(`${kind}.${as}`));
      }
    };
    await keep("old");
    const next = tableOf(8, many("z"));
    const file = open();
    await file.restore();
    await writeSnapshot(file, next);
    await file.keepCopies(next);
    await file.close();
    await keep("new");
    for (const name of Object.values(names)) await rm(path(name), { force: true });
    await rm(path("seen.json"));
    for (const [as, kinds] of Object.entries({ old, new: fresh })) {
      for (const [kind, name] of Object.entries(names)) {
        if (kinds.includes(kind)) await copyFile(path(`${kind}.${as}`), path(name));
      }
    }
    if (old.includes("half")) await writeFile(path("table.image.new"), "CELLTBL\n");
    const found = await restored();
    expect(found.image).toBeUndefined();
    const wanted = revision === 7 ? table : next;
    expect([found.table.revision, found.table.checksum]).toEqual([revision, wanted.checksum]);
  });
});

test("a small table has no image, and a large one a new one only when its journal has grown", async () => {
  const table = tableOf(5, many("a"));
  const small = new TableFile(dir, verifier, [1, 2], { key });
  await small.restore();
  await writeSnapshot(small, table);
  await small.keepCopies(table);
  expect(await readdir(dir)).not.toContain("table.image");
  await small.close();
  const file = open();
  await file.restore();
  await file.keepCopies(table);
  const written = await readFile(path("table.image"));
  await move(file, table, { t1: "b 2" });
  await file.keepCopies(table);
  expect(await readFile(path("table.image"))).toEqual(written);
  const all = Object.keys(many("a"));
  for (let nth = 0; nth < 30; nth += 1) {
    await move(file, table, Object.fromEntries(all.map((id) => [id, `c${nth} 3`])));
  }
  await file.keepCopies(table);
  expect((await readFile(path("table.image"))).equals(written)).toBe(false);
  await file.close();
  expect((await restored()).table.checksum).toBe(table.checksum);
});
