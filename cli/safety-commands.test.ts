/** `cellctl lever`, `rebalance` and `cell drain`: what is said of a slip of the pen, before any fleet is asked. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { against } from "./move.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellctl-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test.each([
  ["lever limits --healthy-cells few", '--healthy-cells: "few" is no number'],
  ["lever limits --wait-after-failover soon", '--wait-after-failover: "soon" is no time'],
  ["rebalance plan --max-bytes lots", '--max-bytes: "lots" is no size'],
  ["rebalance plan --start-above much", '--start-above: "much" is no number'],
  ["cell drain cell-01 --percent abc", '--percent: "abc" is no whole number'],
  ["cell drain cell-01 --deadline soon", '--deadline: "soon" is no time'],
])("%s names the option", async (command, words) => {
  const { code, stderr, asked } = await against({}, command);
  expect({ code, asked }).toEqual({ code: 64, asked: [] });
  expect(stderr).toContain(words);
});

test("a plan that is none is told in words, and the next step leaves the file alone", async () => {
  const file = join(folder, "plan.json");
  const missing = await against({}, `rebalance apply ${file}`);
  expect(missing.stderr).toContain(`${file} does not exist.`);
  expect(missing.stderr).not.toContain("ENOENT");
  for (const [content, words] of [
    ["{ half", "is no JSON"],
    ["[]", "is no plan of a rebalance"],
  ] as const) {
    await writeFile(file, content);
    const { code, stderr, asked } = await against({}, `rebalance apply ${file}`);
    expect(code).not.toBe(0);
    expect(asked).toEqual([]);
    expect(stderr).toContain(words);
    expect(stderr).not.toMatch(/SyntaxError|-O \S*\/plan\.json|-O plan\.json/);
    expect(await readFile(file, "utf8")).toBe(content);
  }
});
