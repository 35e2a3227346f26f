/** For tests only: a folder per test with a table in it, written as a running router writes it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect } from "vitest";
import type { TableState } from "../contract/table-state.ts";
import { createVerifier } from "../runtime/signing.ts";
import { TableFile } from "./file.ts";
import { deltaOf, keys, snapshotOf, tableOf } from "./table.fixture.ts";

export function createTableFolder() {
  const verifier = createVerifier(keys.publicKeys);
  let dir = "";
  const path = (name: string) => join(dir, name);
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "cellfleet-table-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  async function write(table: TableState): Promise<TableFile> {
    const file = new TableFile(dir, verifier, [1, 2]);
    await file.restore();
    const writer = await file.beginSnapshot();
    await writer.write(snapshotOf(table));
    await writer.commit(table);
    return file;
  }

  /** A snapshot at revision 5 and two deltas, written as a running router writes them. */
  async function writeSeven(): Promise<TableState> {
    const table = tableOf(5, { acme: "a 1", globex: "b 1" });
    const file = await write(table);
    for (const upserts of [{ acme: "b 2" }, { initech: "a 1" }]) {
      const delta = deltaOf(table, upserts);
      expect(table.apply(JSON.parse(delta.body))).toBeUndefined();
      await file.append(delta, table);
    }
    await file.close();
    return table;
  }

  const restore = () => new TableFile(dir, verifier, [1, 2]).restore();
  return { dir: () => dir, path, write, writeSeven, restore };
}
