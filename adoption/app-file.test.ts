/** What is written in a `cellfleet.yaml`, and what is said of one that is wrong. */
import { describe, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { parseAppFile } from "./app-file.ts";

const small = "version: 1\nname: shop\nservices:\n  web: { command: node web.js }\n";

function faultsOf(text: string): readonly string[] {
  try {
    parseAppFile(text);
    return [];
  } catch (error) {
    if (error instanceof CellError) return error.details["faults"] as string[];
    throw error;
  }
}

describe("cellfleet.yaml", () => {
  test("needs little", ({ expect }) => {
    expect(parseAppFile(small)).toEqual({
      version: 1,
      name: "shop",
      tenantKey: [{ header: "x-tenant-id" }],
      guardMode: "row",
      tenants: [],
      services: {
        web: {
          command: "node web.js",
          instances: 1,
          health: "/",
          port: true,
          routes: [],
          env: {},
        },
      },
      stores: {},
    });
  });

  test("says all of an application", ({ expect }) => {
    const app = parseAppFile(`
version: 1
name: shop
tenantKey:
  - header: x-account
  - host: "{tenant}.shop.example"
    alias: domains
services:
  web: { command: npm run web, instances: 3, health: /healthz }
  api:
    command: npm run api
    routes: [{ pathPrefix: /api, class: read }, { host: api.shop.example, deadlineMs: 500 }]
    env: { LEVEL: 3, FAST: true }
  worker: { command: npm run worker, port: false }
stores:
  main: { manifest: db/cellfleet.schema.yaml, migrate: npm run migrate, keyColumn: account_id }
  events: { env: EVENTS_URL, watch: [db] }
`);
    expect(app.services["api"]?.env).toEqual({ LEVEL: "3", FAST: "true" });
    expect(app.stores["events"]).toEqual({
      manifest: "cellfleet.schema.yaml",
      watch: ["db"],
      keyColumn: "tenant_id",
      env: "EVENTS_URL",
    });
  });

  test.for([
    ["version: 2\nname: shop\nservices: { web: { command: x } }", "cellfleet.yaml:1:10: version"],
    [`${small}  worker: { comand: x }\n`, "cellfleet.yaml:5:21: services.worker.comand"],
    [`${small}  api: { command: x }\n`, "services.api.routes: say which requests are for api"],
    [`${small}stores:\n  a: {}\n  b: {}\n`, "cellfleet.yaml:7:6: stores.b.env: DATABASE_URL"],
    [`${small}tenantKey: [{ headr: x }]\n`, "cellfleet.yaml:5:"],
    [`${small}  api: { command: x, routes: [{}] }\n`, "a host, a pathPrefix, or both"],
    [
      `${small}  api: { command: x, routes: [{ pathPrefix: /a, class: global }] }\n`,
      "cellctl routing set",
    ],
    [
      `${small}  job: { command: x, port: false, routes: [{ pathPrefix: /a }] }\n`,
      "without a port",
    ],
    [
      `${small}  job: { command: x, port: false, env: { PORT: 1 } }\n`,
      "PORT is set for each process",
    ],
    [`${small}  job: { command: x, port: false, env: { CELLFLEET_X: 1 } }\n`, "CELLFLEET_"],
    ["version: 1\nname: shop\nservices: {}\n", "at least one service"],
    ["version: 1\nname: x\nservices: { a: { command: x, port: false } }", "listens on a port"],
    ["version: 1\nname: Shop\nservices: { web: { command: x } }", "cellfleet.yaml:2:7: name"],
    ["version: 1\nname: shop\nservices:\n  web: { command: x", "cellfleet.yaml:4:"],
    [`${small}name: again\n`, "unique"],
    ["", "cellfleet.yaml"],
    ["[]", "cellfleet.yaml:1:1"],
    [`${small}tenants: ["no good"]\n`, "cellfleet.yaml:5:11: tenants.0"],
    ["version: 1\nname: shop\n__proto__: { a: 1 }\nservices: { web: { command: x } }", "__proto__"],
  ] as const)("%j is refused with its place", ([text, said], { expect }) => {
    expect(faultsOf(text).join("\n")).toContain(said);
  });

  test("tells every fault at once", ({ expect }) => {
    expect(faultsOf("version: 2\nname: S\nservices: { web: { command: '' } }")).toHaveLength(3);
  });

  test("does not grow without end by aliases", ({ expect }) => {
    const rows = ["a: &a [x, x, x, x, x, x, x, x, x]"];
    for (const [index, one] of [..."bcdefghi"].entries()) {
      const before = "abcdefgh"[index];
      rows.push(`${one}: &${one} [${Array(9).fill(`*${before}`).join(", ")}]`);
    }
    expect(faultsOf(rows.join("\n")).join("\n")).toMatch(/alias/i);
  });
});
