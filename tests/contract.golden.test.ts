/**
 * The wire cannot change by accident: every schema of contract/ is pinned as JSON schema in
 * golden/contract.json, and the hash of them all stands here beside the version.
 *
 * Red after a wanted change? docs/checklists/change-the-contract.md: raise the version, write its line of
 * history, `npm run golden`, read the diff, commit it with the change.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { errorCodes, errorTable } from "../contract/errors.ts";
import { release } from "../contract/release.ts";
import { sqlStates } from "../contract/sql-states.ts";
import { contractHistory, contractVersion } from "../contract/version.ts";
import { errorsPage } from "./errors-page.ts";

const root = resolve(import.meta.dirname, "..");
const schemas = await contractSchemas();
const pinned = `${JSON.stringify(schemas, undefined, 2)}\n`;

test("the wire is as it was", async () => {
  expect(Object.keys(schemas).length).toBeGreaterThan(50);
  await expect(pinned).toMatchFileSnapshot("golden/contract.json");
});

test("a change of the wire shows in its version's hash", () => {
  const hash = createHash("sha256").update(pinned).digest("hex").slice(0, 16);
  expect({ contractVersion, hash }).toMatchInlineSnapshot(`
    {
      "contractVersion": 5,
      "hash": "cb6592cf475a5659",
    }
  `);
});

test("a changed pattern, a new field and a lost field each change what is pinned", () => {
  const base = z.object({ a: z.string().regex(/^x$/), b: z.number().optional() });
  const variants = [
    base,
    base.extend({ a: z.string().regex(/^y$/) }),
    base.extend({ c: z.boolean() }),
    base.omit({ b: true }),
    base.extend({ b: z.number() }),
    base.extend({ a: z.string().transform((raw) => raw.length) }),
  ];
  expect(new Set(variants.map((schema) => JSON.stringify(jsonSchema(schema)))).size).toBe(6);
});

test("every version has its line of history", () => {
  expect(contractHistory).toHaveLength(contractVersion);
  contractHistory.forEach((line, index) => {
    expect(line.startsWith(`${index + 1}: `)).toBe(true);
  });
});

test("docs/errors.md says what the error table says", async () => {
  await expect(errorsPage()).toMatchFileSnapshot("../docs/errors.md");
});

test("the error table keeps its own rules", () => {
  for (const code of errorCodes) {
    const { httpStatus, exit, meaning, source, retry } = errorTable[code];
    expect(code).toMatch(/^[A-Z]+(_[A-Z]+)*$/);
    expect(httpStatus).toBeGreaterThanOrEqual(400);
    expect(httpStatus).toBeLessThan(600);
    expect([1, 3, 4, 5, 6, 64, 69, 77, 78]).toContain(exit);
    expect(meaning).toMatch(/^[A-Z`].*\.$/);
    // What is the caller's fault stays so however often it is sent, unless it was only too slow or too soon.
    const passes = code === "IDEMPOTENCY_IN_FLIGHT" || code === "REQUEST_TIMEOUT";
    if (source === "client" && !passes) expect(retry).toBe("never");
  }
  for (const state of Object.keys(sqlStates)) expect(state).toMatch(/^CF\d{3}$/);
});

test("the release is the package's version", () => {
  const parsed: unknown = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(parsed).toMatchObject({ version: release });
  expect(readFileSync(join(root, "CHANGELOG.md"), "utf8")).toContain(`## ${release}`);
});

/** Every exported schema of every file in contract/, by `file#name`, in a fixed order. */
async function contractSchemas(): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const names = readdirSync(join(root, "contract")).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  for (const name of names.sort()) {
    const exported = (await import(join(root, "contract", name))) as Record<string, unknown>;
    for (const [key, value] of Object.entries(exported).sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (value instanceof z.ZodType) found[`${name}#${key}`] = jsonSchema(value);
      // Names of headers are wire as well.
      else if (name === "headers.ts") found[`${name}#${key}`] = value;
    }
  }
  return found;
}

/** What goes over the wire is the input side; a transform adds that there is one. */
function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, {
    io: "input",
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema: made }) => {
      const definition = zodSchema._zod.def;
      if (definition.type === "pipe") made["x-transformed"] = true;
    },
  });
}
