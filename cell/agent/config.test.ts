/** The agent's settings, as the command line gives them. */
import { expect, test } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { parseAgentConfig } from "./config.ts";

const flags = {
  cell: "cell-01",
  listen: "127.0.0.1:0",
  admin: "[::1]:9100",
  upstream: "http://127.0.0.1:3000",
  databaseUrl: "file:/secrets/url",
  token: "env:TOKEN",
  controlPlane: "http://127.0.0.1:8090",
};

test("are read", () => {
  expect(parseAgentConfig(flags)).toMatchObject({
    cell: "cell-01",
    listen: { host: "127.0.0.1", port: 0 },
    admin: { host: "::1", port: 9100 },
    endpoint: undefined,
    services: [{ name: "default", upstreams: ["http://127.0.0.1:3000"], replicas: [] }],
    replicaLagMs: 1000,
    goldMs: 2000,
    table: undefined,
  });
});

test("that are wrong are all named at once, and secrets are never repeated", () => {
  let refusal: unknown;
  try {
    parseAgentConfig({
      ...flags,
      cell: "Cell 1",
      listen: "8080",
      databaseUrl: "postgres://user:hunter2@db/app",
      upstream: "ftp://x",
      token: undefined,
    });
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(CellError);
  const { code, message } = refusal as CellError;
  expect(code).toBe("CONFIG_INVALID");
  for (const flag of ["--cell", "--listen", "--database-url", "--upstream", "--token"]) {
    expect(message).toContain(flag);
  }
  expect(message).not.toContain("hunter2");
});

test("services, replicas and the table are read, from lists or from one text of the environment", () => {
  const config = parseAgentConfig({
    ...flags,
    upstream: "web=http://127.0.0.1:3000 web=http://127.0.0.1:3001",
    health: ["web=/up"],
    replica: ["web=http://127.0.0.1:3002,env:REPLICA"],
    replicaLagMs: "250",
    queryDatabaseUrl: "file:/secrets/reader",
    trustKeys: "/keys.json",
    stateDir: "/state",
  });
  expect(config).toMatchObject({
    services: [
      {
        ...{ name: "web", health: "/up" },
        upstreams: ["http://127.0.0.1:3000", "http://127.0.0.1:3001"],
        replicas: [{ url: "http://127.0.0.1:3002", database: "env:REPLICA" }],
      },
    ],
    ...{ replicaLagMs: 250, queryDatabaseUrl: "file:/secrets/reader" },
    table: { trustKeys: "/keys.json", stateDir: "/state" },
  });
});

test.each([
  ["--state-dir", { trustKeys: "/keys.json" }],
  ["--upstream", { upstream: [] }],
  ["--replica-lag-ms", { replicaLagMs: "soon" }],
  ["--gold-ms", { goldMs: "-1" }],
  ["--query-database-url", { queryDatabaseUrl: "postgres://reader:hunter2@db/x" }],
])("%s that is wrong is named", (flag, more) => {
  expect(() => parseAgentConfig({ ...flags, ...more })).toThrow(flag);
});
