/** `cellctl init` in a folder of an application: what it finds, asks and writes. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, test } from "vitest";
import { readAppFile } from "../adoption/app-file.ts";
import { openClient } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellctl, type RunOptions } from "./cli.fixture.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellfleet-init-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const init = (args: readonly string[], options: RunOptions = {}) =>
  cellctl(["init", ...args], { cwd: folder, ...options });
const put = (name: string, text: string) => writeFile(join(folder, name), text);
const written = async () => (await readAppFile(folder)).app;
const procfile = "web: bin/web -p $PORT\nworker: bin/work\nrelease: bin/migrate\n";

describe("cellctl init", () => {
  test("writes what flags say", async ({ expect }) => {
    const ran = await init([
      ...["--name", "shop", "--service", "web=node web.js", "--service", "api=node api.js"],
      ...["--worker", "cron=node cron.js", "--health", "/healthz", "--instances", "web=3"],
      ...["--route", "api=/v1", "--tenant-key", "header:x-account", "--tenant-key"],
      ...["host:{tenant}.shop.example", "--migrate", "node migrate.js", "--tenant", "acme"],
      ...["--key-column", "account_id"],
    ]);
    expect(ran).toMatchObject({ code: 0, stdout: "" });
    expect(await written()).toMatchObject({
      name: "shop",
      tenantKey: [{ header: "x-account" }, { host: "{tenant}.shop.example" }],
      tenants: ["acme"],
      services: {
        web: { command: "node web.js", instances: 3, health: "/healthz", routes: [] },
        api: { routes: [{ pathPrefix: "/v1" }], health: "/healthz" },
        cron: { command: "node cron.js", port: false },
      },
      stores: { default: { migrate: "node migrate.js", keyColumn: "account_id" } },
    });
  });

  test("takes what a Procfile proposes, with --yes", async ({ expect }) => {
    await put("Procfile", procfile);
    const ran = await init(["--yes", "--name", "a"]);
    expect(ran.stderr).toContain("Looked at Procfile.");
    expect(await written()).toMatchObject({
      services: { web: { command: "bin/web -p $PORT" }, worker: { port: false } },
      stores: { default: { migrate: "bin/migrate", keyColumn: "tenant_id" } },
    });
  });

  test("reads scripts of package.json, and a compose file that builds", async ({ expect }) => {
    await put(
      "package.json",
      '{"name":"@x/Shop App","scripts":{"start":"x","worker":"y","db:migrate":"z"}}',
    );
    await init(["--yes"]);
    expect(await written()).toMatchObject({
      name: "shop-app",
      services: { web: { command: "npm start" }, worker: { command: "npm run worker" } },
      stores: { default: { migrate: "npm run db:migrate" } },
    });
    await rm(join(folder, "package.json"));
    await put(
      "compose.yaml",
      'services:\n  db: { image: postgres }\n  site: { build: ., command: ["gunicorn", "my app"], ports: ["80:80"] }\n',
    );
    await init(["--yes", "--force"]);
    expect((await written()).services).toMatchObject({ site: { command: "gunicorn 'my app'" } });
  });

  test("asks, with proposals, and takes an empty line for yes", async ({ expect }) => {
    await put("Procfile", procfile);
    const answers = ["mine", "", "-", "/up", "cookie:org", "", "org_id"];
    const ran = await init([], { terminal: true, stdin: `${answers.join("\n")}\n` });
    expect(ran.stderr).toContain("Command that migrates DATABASE_URL (- for none) [bin/migrate]");
    expect(await written()).toMatchObject({
      name: "mine",
      tenantKey: [{ cookie: "org" }],
      services: { web: { health: "/up" } },
      stores: { default: { keyColumn: "org_id" } },
    });
    expect(Object.keys((await written()).services)).toEqual(["web"]);
  });

  test("writes nothing when an answer is missing or does not fit", async ({ expect }) => {
    const nobody = await init(["--yes"]);
    expect(nobody.code).toBe(64);
    expect(nobody.stderr).toContain("Nothing was written");
    const cut = await init([], { terminal: true, stdin: "mine\n" });
    expect(cut.code).toBe(64);
    const wrong = await init(["--service", "web=x", "--tenant-key", "moon:x"]);
    expect([wrong.code, wrong.stderr]).toEqual([64, expect.stringContaining("moon:x")]);
    const unfit = await init(["--name", "Not A Name", "--service", "web=x", "--yes"]);
    expect([unfit.code, unfit.stderr]).toEqual([78, expect.stringContaining("name: must be")]);
    await expect(readFile(join(folder, "cellfleet.yaml"))).rejects.toThrow("ENOENT");
  });

  test("never replaces a file unasked", async ({ expect }) => {
    await put("cellfleet.yaml", "mine\n");
    const refused = await init(["--yes", "--service", "web=x"]);
    expect([refused.code, refused.stderr]).toEqual([64, expect.stringContaining("--force")]);
    expect(await readFile(join(folder, "cellfleet.yaml"), "utf8")).toBe("mine\n");
    expect((await init(["--yes", "--service", "web=x", "--force"])).code).toBe(0);
  });
});

describe("cellctl init with a database", () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startTestPostgres();
  });
  afterAll(() => server.stop());

  test("classes its tables, and takes the key column from there", async ({ expect }) => {
    const url = await server.createDatabase("mine");
    const client = await openClient(url);
    await client.query(`create table accounts (id text primary key);
      create table orders (id bigserial primary key, account_id text not null references accounts);
      create table invoices (id bigserial primary key, account_id text not null)`);
    await client.end();
    const ran = await init(
      ["--yes", "--service", "web=node web.js", "--database-url", "env:MINE", "-o", "json"],
      { env: { MINE: url } },
    );
    expect(ran.code, ran.stderr).toBe(0);
    expect(JSON.parse(ran.stdout)).toMatchObject({
      files: ["cellfleet.yaml", "cellfleet.schema.yaml"],
    });
    expect((await written()).stores["default"]?.keyColumn).toBe("account_id");
    expect(await readFile(join(folder, "cellfleet.schema.yaml"), "utf8")).toMatch(
      /keyColumn: account_id[\s\S]*orders/,
    );
  });
});
