/** The second copy of the table on disk: what serves when the newest one is damaged or gone. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { describe, expect, test, vi } from "vitest";
import { must } from "../runtime/assert.ts";
import { createVerifier } from "../runtime/signing.ts";
import { createTableFolder } from "./file.fixture.ts";
import { TableFile } from "./file.ts";
import { deltaOf, keys, otherSigner, snapshotOf, tableOf } from "./table.fixture.ts";

// A real disk on a machine that may be busy.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const verifier = createVerifier(keys.publicKeys);
const { dir, path, write, writeSeven, restore } = createTableFolder();

describe("the one before", () => {
  const flip = async (name: string) => {
    const bytes = await readFile(path(name));
    const middle = bytes.length >> 1;
    bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
    await writeFile(path(name), bytes);
  };

  test("is a copy at first, then the snapshot that was replaced, with its journal", async () => {
    const table = await writeSeven();
    expect(await readFile(path("table.previous.ndjson"))).toEqual(
      await readFile(path("table.ndjson")),
    );
    const file = await write(table);
    const delta = deltaOf(table, { hooli: "a 1" });
    expect(table.apply(JSON.parse(delta.body))).toBeUndefined();
    await file.append(delta, table);
    await file.close();
    await flip("table.ndjson");
    const restored = await restore();
    expect(restored).toMatchObject({ kind: "restored", table: { revision: 8 } });
    if (restored.kind === "restored") expect(restored.table.checksum).toBe(table.checksum);
  });

  test("is not appended to: the next change waits for a snapshot, which leaves two good ones", async () => {
    const table = await writeSeven();
    await flip("table.ndjson");
    const file = new TableFile(dir(), verifier, [1, 2]);
    expect(await file.restore()).toMatchObject({ kind: "restored" });
    expect(file.wantsSnapshot).toBe(true);
    expect(file.storedRevision).toBe(7);
    await expect(file.append(deltaOf(table, { hooli: "a 1" }), table)).rejects.toThrow(/lacks/);
    const writer = await file.beginSnapshot();
    await writer.write(snapshotOf(table));
    await writer.commit(table);
    await file.close();
    expect(await restore()).not.toHaveProperty("damaged");
    await flip("table.ndjson");
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 5 } });
  });

  test.each([
    ["is of another fleet", () => snapshotOf(tableOf(5, {}, {}, "fleet-2"))],
    ["is signed by somebody else", () => snapshotOf(tableOf(5, { acme: "a 1" }), otherSigner)],
    ["is of a newer format", () => snapshotOf(tableOf(5, {}), undefined, { version: 2 })],
  ])("is never taken when it %s", async (_name, bytes) => {
    await writeSeven();
    await rm(path("table.ndjson"));
    await writeFile(path("table.previous.ndjson"), bytes());
    expect(await restore()).toMatchObject({ kind: "refused", reason: "missing" });
    await (await write(tableOf(9, { acme: "a 1" }))).close();
    await flip("table.ndjson");
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 9 } });
  });

  test.each([["table.previous.ndjson"], ["journal.previous.ndjson"]])(
    "a folder in place of %s keeps no snapshot from being written",
    async (name) => {
      const table = await writeSeven();
      await rm(path(name), { force: true });
      await mkdir(path(name));
      await (await write(table)).close();
      await flip("table.ndjson");
      expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 7 } });
    },
  );

  test("what an earlier release wrote is copied once it serves", async () => {
    const table = await writeSeven();
    await rm(path("table.previous.ndjson"));
    const file = new TableFile(dir(), verifier, [1, 2]);
    await file.restore();
    await file.keepCopies(table);
    await file.close();
    await flip("table.ndjson");
    expect(await restore()).toMatchObject({ kind: "restored", table: { revision: 7 } });
  });

  // The files as they lie after each step of a snapshot's taking its place, and a crash there.
  test.each([
    ["the old journal is gone", ["table", "previous", "journal", "new"]],
    ["the old snapshot has its new name", ["previous=table", "journal", "new"]],
    ["the new one is in its place", ["table=new", "previous=table", "journal"]],
    ["the journal is beside it", ["table=new", "previous=table", "before=journal"]],
  ])("a crash when %s leads to the table that was served", async (_name, files) => {
    const table = await writeSeven();
    const names: Record<string, string> = {
      ...{ table: "table.ndjson", previous: "table.previous.ndjson", journal: "journal.ndjson" },
      ...{ new: "table.ndjson.new", before: "journal.previous.ndjson" },
    };
    const nameOf = (short = "") => path(must(names[short], short));
    await writeFile(nameOf("new"), snapshotOf(table));
    const was = new Map<string, Buffer>();
    for (const short of ["table", "previous", "journal", "new"]) {
      was.set(short, await readFile(nameOf(short)));
      await rm(nameOf(short));
    }
    for (const file of files) {
      const [as, of = as] = file.split("=");
      await writeFile(nameOf(as), must(was.get(must(of, "name")), file));
    }
    expect(await restore()).toMatchObject({
      kind: "restored",
      table: { revision: 7, checksum: table.checksum },
    });
  });
});
