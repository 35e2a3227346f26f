/** Static checks of the Terraform modules: they need no terraform, so they run everywhere. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const modules = resolve(import.meta.dirname, "../../terraform/modules");

type Block = { readonly name: string; readonly body: string };

/** Top-level blocks `kind "name" { … }`; a block ends where a line begins with a brace. */
function blocks(text: string, kind: string): Block[] {
  const pattern = new RegExp(`^${kind} "([a-z_]+)" \\{\\n([\\s\\S]*?)^\\}`, "gm");
  return [...text.matchAll(pattern)].map(([, name = "", body = ""]) => ({ name, body }));
}

const quoted = (body: string, field: string): string =>
  new RegExp(`^ {2}${field}\\s+= "(.*)"$`, "m").exec(body)?.[1] ?? "";

function inputRow({ name, body }: Block): string {
  const type = /^ {2}type\s+= ([a-z]+(\([a-z]+\))?)/m.exec(body)?.[1] ?? "";
  const value = /^ {2}default\s+= (.*)$/m.exec(body)?.[1];
  const fallback = value === undefined ? "required" : `\`${value}\``;
  return `| \`${name}\` | \`${type}\` | ${fallback} | ${quoted(body, "description")} |`;
}

const outputRow = ({ name, body }: Block): string =>
  `| \`${name}\` | ${quoted(body, "description")} |`;

describe.each(readdirSync(modules))("module %s", (name) => {
  const folder = join(modules, name);
  const read = (file: string) => readFileSync(join(folder, file), "utf8");
  const inputs = blocks(read("variables.tf"), "variable");
  const outputs = blocks(read("outputs.tf"), "output");

  test("has inputs and outputs, each typed or described", () => {
    expect(inputs.length).toBeGreaterThan(0);
    expect(outputs.length).toBeGreaterThan(0);
    const bare = inputs.filter(
      ({ body }) => !/^ {2}type\s/m.test(body) || quoted(body, "description") === "",
    );
    expect(bare.map((input) => input.name)).toEqual([]);
    expect(outputs.filter(({ body }) => quoted(body, "description") === "")).toEqual([]);
  });

  test("validates every input that is not a plain switch", () => {
    const unchecked = inputs.filter(
      ({ body }) => !body.includes("validation {") && !/^ {2}type\s+= bool$/m.test(body),
    );
    expect(unchecked.map((input) => input.name)).toEqual([]);
  });

  test("is described by its README as it is", () => {
    const rows = read("README.md").split("\n");
    expect(rows).toEqual(
      expect.arrayContaining([...inputs.map(inputRow), ...outputs.map(outputRow)]),
    );
    const told = rows.filter((row) => row.startsWith("| `"));
    expect(told).toHaveLength(inputs.length + outputs.length);
  });

  test("says which Terraform it needs, and has tests", () => {
    expect(read("versions.tf")).toContain("required_version");
    expect(existsSync(join(folder, "tests"))).toBe(true);
  });
});
