/** Keys of a router: which signs, when they are exchanged, what is on the disk. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { chooseKey, decideKeyStep, openOwnKeys, overlapMs } from "./own-keys.ts";

const day = 86_400_000;
const key = (id: string, madeAtMs = 0) => ({ id, madeAtMs });

describe("an exchange by age", () => {
  test.each([
    ["no key yet", [], [], 0, "make"],
    ["a fresh key", [key("a")], ["a"], day, "keep"],
    ["an old key that cells know", [key("a")], ["a"], 31 * day, "make"],
    ["an old key that no table names yet", [key("a")], [], 31 * day, "keep"],
    ["a new one beside the old one", [key("b", day), key("a")], ["a", "b"], day + 1, "keep"],
    ["a new one that is not named", [key("b", 0), key("a")], ["a"], 90 * day, "keep"],
    ["the old one after its overlap", [key("b"), key("a")], ["a", "b"], overlapMs, "drop-old"],
  ] as const)("%s", (_what, keys, named, nowMs, step) => {
    expect(decideKeyStep(keys, new Set(named), nowMs, 30 * day)).toBe(step);
  });
});

describe("the key that signs", () => {
  const keys = [key("new"), key("old")];
  test.each([
    ["is the only one that cells know", { old: 0 }, "old"],
    ["is the old one while the new one spreads", { old: 0, new: 97 }, "old"],
    ["is the new one after that", { old: 0, new: 95 }, "new"],
    ["is the newest when cells know none", {}, "new"],
    ["is the new one at once when it alone is known", { new: 100 }, "new"],
  ] as const)("%s", (_what, since, id) => {
    expect(chooseKey(keys, new Map(Object.entries(since)), 100, 5)?.id).toBe(id);
  });
});

describe("on disk", () => {
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "cellfleet-keys-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));
  const path = () => join(dir, "state", "router-keys.json");

  test("a key is made once, for its owner's eyes alone", async () => {
    const { keys, unwritten } = await openOwnKeys(join(dir, "state"), 5);
    expect(unwritten).toBeUndefined();
    expect((await stat(path())).mode & 0o777).toBe(0o600);
    expect(await openOwnKeys(join(dir, "state"), 6)).toEqual({ keys, unwritten: undefined });
  });

  test("several that start at once have the same key", async () => {
    const all = await Promise.all([1, 2, 3, 4].map((now) => openOwnKeys(join(dir, "state"), now)));
    expect(new Set(all.map(({ keys }) => keys[0]?.id)).size).toBe(1);
  });

  test("a damaged file is replaced, a key under a wrong id is not believed", async () => {
    const { keys } = await openOwnKeys(join(dir, "state"), 5);
    await writeFile(path(), (await readFile(path(), "utf8")).slice(0, 40));
    const fresh = await openOwnKeys(join(dir, "state"), 6);
    expect(fresh.keys[0]?.id).not.toBe(keys[0]?.id);
    const forged = { keys: fresh.keys.map((one) => ({ ...one, id: "0123456789abcdefghij_-" })) };
    await writeFile(path(), JSON.stringify(forged));
    const next = await openOwnKeys(join(dir, "state"), 7);
    expect(next.keys[0]?.id).not.toBe("0123456789abcdefghij_-");
  });

  test("a folder that takes nothing costs the file, not the key", async () => {
    await writeFile(join(dir, "state"), "no folder");
    const { keys, unwritten } = await openOwnKeys(join(dir, "state"), 5);
    expect(keys).toHaveLength(1);
    expect(unwritten).toBeInstanceOf(Error);
  });
});
