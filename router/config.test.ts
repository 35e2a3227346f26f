/** Settings: everything that is wrong is said at once. */
import { describe, expect, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { parseRouterConfig } from "./config.ts";
import { parseStaticTable } from "./table/static-table.ts";

const base = { listen: "127.0.0.1:80", admin: "[::1]:81", table: "t.json" };
const problemsOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof CellError) return `${error.code} ${error.message}`;
  }
  return "nothing is wrong";
};

describe("settings", () => {
  test("of static mode", () => {
    expect(parseRouterConfig(base)).toMatchObject({
      id: "router",
      listen: { host: "127.0.0.1", port: 80 },
      admin: { host: "::1", port: 81 },
      source: { kind: "static", file: "t.json" },
      cellHeaders: true,
    });
  });
  test("of a control plane", () => {
    const remote = {
      controlPlane: "http://cp.test/",
      token: "env:T",
      trustKeys: "k",
      stateDir: "s",
      id: "r1",
    };
    const { table: _none, ...rest } = base;
    expect(parseRouterConfig({ ...rest, ...remote }).source).toEqual({
      ...{
        kind: "control-plane",
        url: "http://cp.test",
        token: "env:T",
        trustKeys: "k",
        stateDir: "s",
      },
    });
    expect(
      problemsOf(() => parseRouterConfig({ ...rest, controlPlane: "http://cp.test" })),
    ).toMatch(/--token, --trust-keys, --state-dir, --id is missing/);
    expect(problemsOf(() => parseRouterConfig({ ...base, ...remote }))).toMatch(
      /--table excludes --control-plane/,
    );
  });
  test("that are wrong are told in plain words", () => {
    expect(problemsOf(() => parseRouterConfig({ ...base, deadlineMs: "2s", workers: "0" }))).toBe(
      'CONFIG_INVALID The router\'s settings are wrong: --deadline-ms must be a number, and not "2s"; ' +
        '--workers must be at least 1, and not "0".',
    );
    expect(
      problemsOf(() => parseStaticTable("t.json", '{"cells":{"a":{"endpoints":[]}},"x":1}', 1)),
    ).toMatch(/; there is no "x" here\.$/);
  });
  test("are all judged at once", () => {
    const text = problemsOf(() =>
      parseRouterConfig({
        listen: "nowhere",
        admin: "a:99999",
        holdMs: "-1",
        trustedProxies: "10.0.0.0/8,x",
        what: 1,
      }),
    );
    for (const part of [
      "--listen must be HOST:PORT",
      "--admin must be",
      "--hold-ms",
      "x is not an address",
      "--what",
      "--table FILE or --control-plane",
    ]) {
      expect(text).toContain(part);
    }
  });
  test.each([
    [{ admin: "127.0.0.1:80" }, /--listen and --admin are the same address/],
    [{ admin: "0.0.0.0:80" }, /--listen and --admin are the same address/],
    [{ admin: "[::]:80" }, /--listen and --admin are the same address/],
    [{ admin: "localhost:80" }, /--listen and --admin are the same address/],
    [{ listen: "0.0.0.0:81" }, /--listen and --admin are the same address/],
    [{ h2c: "[::]:81" }, /--h2c and --admin are the same address/],
    [{ tls: "0.0.0.0:81", tlsCerts: "x" }, /--tls and --admin are the same address/],
    [{ accessLogSample: "1.5" }, /--access-log-sample /],
    [{ otlp: "collector:4318" }, /--otlp /],
    [{ heldPerKeyMax: 10, heldMax: 5 }, /--held-per-key-max is above --held-max/],
  ])("that contradict each other: %j", (wrong, text) => {
    expect(problemsOf(() => parseRouterConfig({ ...base, ...wrong }))).toMatch(text);
  });
  test("name the proxies that are trusted", () => {
    const { trustedProxies } = parseRouterConfig({ ...base, trustedProxies: "10.0.0.0/8, ::1" });
    expect([trustedProxies.check("10.1.2.3"), trustedProxies.check("11.0.0.1")]).toEqual([
      true,
      false,
    ]);
    expect(trustedProxies.check("::1", "ipv6")).toBe(true);
  });
});

test.each([
  ["{", /t.json is wrong/],
  ['{"cells":{"A!":{"endpoints":["http://x"]}}}', /cells.A!: must be/],
  [
    '{"cells":{"b":{"endpoints":["http://x"]}},"tenants":{"acme":"a"}}',
    /tenants.acme: there is no cell a/,
  ],
  ['{"cells":{"a":{"endpoints":["http://x"]}},"tenants":{"a/b":"a"}}', /tenants.a\/b: must be/],
  [
    '{"cells":{"b":{"endpoints":["http://x"]}},"passThrough":"a"}',
    /passThrough: there is no cell a/,
  ],
  ['{"cells":{"a":{"endpoints":[]}}}', /cells.a/],
  ['{"cells":{"a":{"endpoints":["file:///x"]}}}', /cells.a/],
  ['{"cells":{}}', /cells: needs at least one cell/],
  ['{"cells":{},"surprise":1}', /surprise/],
])("the static table %s is refused", (text, reason) => {
  expect(problemsOf(() => parseStaticTable("t.json", text, 1))).toMatch(reason);
});
