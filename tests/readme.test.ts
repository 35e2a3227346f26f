/** Static checks of the README and of the pages it leads to; its tour is executed in e2e/readme.e2e.test.ts. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { errorCodes } from "../contract/errors.ts";
import { staticTableSchema } from "../contract/routing-table.ts";
import { missingLine, tourSteps } from "./readme.ts";

const root = resolve(import.meta.dirname, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const outside = new Set(["node_modules", "dist", "coverage"]);

describe("reading a tour", () => {
  const page = [
    "```sh",
    "not run",
    "```",
    "```sh tour",
    "echo one",
    "```",
    "```text",
    "one",
    "```",
    "```sh tour",
    "true",
    "```",
  ].join("\n");

  test("takes what is marked, with what is shown below it", () => {
    expect(tourSteps(page)).toEqual([
      { line: 4, script: "echo one", shown: ["one"] },
      { line: 10, script: "true", shown: [] },
    ]);
  });

  test("compares in order, whole lines, with … for anything", () => {
    const output = '{"id":17}\nnoise\ndone (a+b)\n';
    expect(missingLine(output, ['{"id":…}', "done (a+b)"])).toBeUndefined();
    expect(missingLine(output, ["done (a+b)", '{"id":…}'])).toBe('{"id":…}');
    expect(missingLine(output, ["done"])).toBe("done");
    expect(missingLine("", ["…"])).toBeUndefined();
    expect(missingLine("", ["x…"])).toBe("x…");
  });
});

describe("the README", () => {
  test("has a tour that shows what comes back", () => {
    const steps = tourSteps(readme);
    expect(steps.length).toBeGreaterThan(6);
    expect(steps.filter(({ shown }) => shown.length > 0).length).toBeGreaterThan(4);
  });

  test("names only error codes that exist", () => {
    const named = [...readme.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)].map(([code]) => code);
    const words = new Set<string>([...errorCodes, "DATABASE_URL", "CELLFLEET_DATABASE_URL"]);
    expect(named.length).toBeGreaterThan(2);
    expect(named.filter((name) => !words.has(name))).toEqual([]);
  });

  test("shows a static table that a router accepts", () => {
    const [, json = ""] = /```json\n([\s\S]*?)```/.exec(readme) ?? [];
    expect(staticTableSchema.parse(JSON.parse(json)).tenants).toMatchObject({ acme: "a" });
  });
});

test("every link between pages leads somewhere", () => {
  const pages = markdownFiles(root);
  expect(pages.length).toBeGreaterThan(20);
  const broken = pages.flatMap((page) =>
    [...readFileSync(page, "utf8").matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !existsSync(resolve(dirname(page), target)))
      .map((target) => `${page.slice(root.length + 1)} links to ${target}`),
  );
  expect(broken).toEqual([]);
});

function markdownFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith(".") || outside.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return markdownFiles(path);
    return entry.name.endsWith(".md") ? [path] : [];
  });
}
