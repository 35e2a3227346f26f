/**
 * The house rules, executed: on the real tree, where nothing may break them, and on planted trees,
 * where each rule must see its violation. A checker that cannot turn red proves nothing.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { checks, lockExceptions, type SourceFile } from "./architecture-rules.ts";
import { importRules } from "./import-rules.ts";

const root = resolve(import.meta.dirname, "..");
const outside = new Set(["node_modules", "dist", "coverage"]);
const tree = readTree(root);

describe("the tree keeps the rules", () => {
  test.each(Object.entries(checks))("%s", (_name, check) => {
    expect(check(tree)).toEqual([]);
  });

  test("every room that docs/ARCHITECTURE.md names has a rule", () => {
    const page = readFileSync(join(root, "docs/ARCHITECTURE.md"), "utf8");
    const rows = page.split("\n").filter((line) => line.startsWith("| `"));
    const rooms = rows.flatMap((row) =>
      [...(row.split("|")[1] ?? "").matchAll(/`([\w/-]+\/)`/g)].map((match) => match[1] ?? ""),
    );
    expect(rooms.length).toBeGreaterThan(10);
    const lawless = rooms.filter(
      (room) => !importRules.some(({ from }) => from.test(`${room}any.ts`)),
    );
    expect(lawless).toEqual([]);
  });

  test("every exception of the lock rule is still needed", () => {
    const stale = lockExceptions.filter(
      ({ path }) => !tree.some((file) => path.test(file.path) && /advisory|hash/.test(file.text)),
    );
    expect(stale.map(({ path }) => String(path))).toEqual([]);
  });
});

const file = (path: string, text: string): SourceFile => ({ path, text });
const head = "/** What it is for. */\n";
type CheckName = keyof typeof checks;

/** Each tree breaks one rule, and the rule says so in these words. */
const violations: readonly (readonly [CheckName, SourceFile, RegExp])[] = [
  [
    "imports flow one way",
    file("contract/ids.ts", `${head}import { must } from "../runtime/assert.ts";`),
    /contract\/ids\.ts may not import runtime\/assert\.ts: the wire language/,
  ],
  [
    "imports flow one way",
    file("contract/ids.ts", `${head}import { createHash } from "node:crypto";`),
    /may not import node:crypto/,
  ],
  [
    "imports flow one way",
    file("runtime/log.ts", `${head}import type { Cell } from "../router/serve.ts";`),
    /runtime\/log\.ts may not import router\/serve\.ts/,
  ],
  [
    "imports flow one way",
    file("router/place/decide.ts", `${head}import {\n  Agent,\n  request,\n} from "undici";`),
    /router\/place\/decide\.ts may not import undici: routing decisions are pure/,
  ],
  [
    "imports flow one way",
    file("router/serve.ts", `${head}export { place } from "../control-plane/core/place.ts";`),
    /router\/serve\.ts may not import control-plane\/core\/place\.ts/,
  ],
  [
    "imports flow one way",
    file("cell/sample/app.ts", `${head}import { headers } from "../../contract/headers.ts";`),
    /the sample application uses nothing of ours/,
  ],
  [
    "imports flow one way",
    file("cell/agent/gate.ts", `${head}const late = await import("../../router/decide.ts");`),
    /cell\/agent\/gate\.ts may not import router\/decide\.ts/,
  ],
  [
    "imports flow one way",
    file("control-plane/core/place.ts", `${head}import { hostname } from "node:os";`),
    /control-plane\/core\/place\.ts may not import node:os: decisions are pure/,
  ],
  [
    "imports flow one way",
    file("control-plane/api/cells.ts", `${head}import { act } from "../work/reconcile.ts";`),
    /the API records intent/,
  ],
  [
    "imports flow one way",
    file("cli/tenant.ts", `${head}import { run } from "../router/run.ts";`),
    /cli\/processes\.ts alone starts the rooms/,
  ],
  [
    "imports flow one way",
    file("cli/processes.ts", `${head}import { decide } from "../router/decide.ts";`),
    /each room's run\.ts/,
  ],
  [
    "imports flow one way",
    file("local/dev.ts", `${head}import { run } from "../control-plane/run.ts";`),
    /started as processes, not imported/,
  ],
  [
    "imports flow one way",
    file("history/check.ts", `${head}import { Pool } from "pg";`),
    /the checker is pure/,
  ],
  [
    "imports flow one way",
    file("router/serve.ts", `${head}import { database } from "../tests/postgres.ts";`),
    /may not import tests\/postgres\.ts/,
  ],
  [
    "imports flow one way",
    file("router/serve.ts", `${head}import { peer } from "./peer.fixture.ts";`),
    /may not import router\/peer\.fixture\.ts/,
  ],
  ["imports flow one way", file("attic/old.ts", head), /attic\/old\.ts lies in no room/],
  [
    "nobody imports an entry point",
    file("tests/a.test.ts", 'import "../cli/main.ts";'),
    /tests\/a\.test\.ts imports cli\/main\.ts/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/hold.ts", `${head}const now = Date.now();`),
    /router\/hold\.ts:2 use the injected Clock/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/hold.ts", `${head}import { setTimeout } from "node:timers/promises";`),
    /the injected Clock's timers/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("control-plane/work/lead.ts", `${head}const id = randomUUID();`),
    /the injected Random/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/config.ts", `${head}const port = process.env["PORT"];`),
    /only an entry point reads the environment/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/serve.ts", `${head}console.log("here");`),
    /the typed log/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/forward.ts", `${head}import proxy from "http-proxy";`),
    /the one file that knows http-proxy/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("cli/processes.ts", `${head}const room = await import(path);`),
    /a literal path/,
  ],
  [
    "time, chance, environment and output enter by the front door",
    file("router/identify.ts", `${head}return raw as TenantId;`),
    /nothing else mints an id/,
  ],
  [
    "one lock key",
    file("cell/store/fence.ts", `${head}sql("select pg_advisory_xact_lock(7)");`),
    /cell\/store\/fence\.ts:2 takes an advisory lock/,
  ],
  [
    "one lock key",
    file("control-plane/store/lease.ts", `${head}sql("select hashtextextended($1, 0)");`),
    /computes a hash/,
  ],
  [
    "one lock key",
    file("cell/sql/guard.sql", "select hashtextextended(k, 1);\nselect hashtext(k);"),
    /2 hashes are computed/,
  ],
  [
    "no test is switched off or left alone",
    file("router/decide.test.ts", 'test.only("a", () => {});'),
    /router\/decide\.test\.ts:1/,
  ],
  [
    "no test is switched off or left alone",
    file("router/decide.test.ts", 'describe.skipIf(slow)("a", () => {});'),
    /skipIf/,
  ],
  [
    "no dumping grounds, no endless files",
    file("router/utils.ts", head),
    /router\/utils\.ts is named after nothing/,
  ],
  [
    "no dumping grounds, no endless files",
    file("router/serve.ts", "\n".repeat(401)),
    /router\/serve\.ts has 401 lines/,
  ],
  [
    "every file opens with what it is for",
    file("router/serve.ts", "export const a = 1;"),
    /router\/serve\.ts does not open/,
  ],
];

describe("each rule sees its violation", () => {
  for (const [name, planted, message] of violations) {
    test(`${name}: ${message.source}`, () => {
      expect(checks[name]([planted])).toEqual([expect.stringMatching(message)]);
    });
  }

  test("an empty tree is red", () => {
    expect(checks["the checker sees the code"]([])).toHaveLength(4);
  });

  test("every rule has a planted violation", () => {
    const planted = new Set<string>([
      "the checker sees the code",
      ...violations.map(([name]) => name),
    ]);
    expect(Object.keys(checks).filter((name) => !planted.has(name))).toEqual([]);
  });

  test("prose may name what code must not use", () => {
    const prose = file("router/hold.ts", `${head}// Never Date.now() here.\n * process.env\n`);
    expect(Object.values(checks).flatMap((check) => check([prose]))).not.toContainEqual(
      expect.stringContaining("router/hold.ts:"),
    );
  });
});

function readTree(folder: string): SourceFile[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith(".") || outside.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return readTree(path);
    return /\.(ts|sql)$/.test(entry.name)
      ? [{ path: relative(root, path), text: readFileSync(path, "utf8") }]
      : [];
  });
}
