/** `GET /resolve` and `GET /owned`: for work that does not come through a router. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hashAlias, normaliseAlias } from "../../contract/alias.ts";
import { defaultKeyspace, parseCellId, parseTenantId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import {
  keys,
  startControlPlane,
  type TestControlPlane,
  tableOf,
} from "../../table/table.fixture.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, openBench, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";

let server: TestPostgres;
let bench: AgentBench;
let publisher: TestControlPlane;
let dir = "";
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
  dir = await mkdtemp(join(tmpdir(), "cellfleet-agent-"));
  await writeFile(join(dir, "keys.json"), JSON.stringify(keys.publicKeys));
  publisher = await startControlPlane(firstTable());
  bench.control.settings.tableOrigin = publisher.url;
});
afterEach(async () => {
  await bench.close();
  await publisher.close();
  await rm(dir, { recursive: true, force: true });
});

const salt = "00112233445566778899aabbccddeeff";
const mail = (name: string, ...tenants: string[]) => {
  const hash = hashAlias(salt, "mail", must(normaliseAlias(name, true), "a name"));
  return tenants.map((tenant): [string, NonNullable<ReturnType<typeof parseTenantId>>] => [
    hash,
    must(parseTenantId(tenant), "tenant id"),
  ]);
};
const firstTable = () =>
  tableOf(
    5,
    { acme: `cell-${cells} 1`, globex: "cell-99 3", initech: "cell-99 4 hold" },
    { [`cell-${cells}`]: ["http://here:1"], "cell-99": ["http://there:1", "http://there:2"] },
    "fleet-1",
    { aliasing: { salt, namespaces: [{ name: "mail", fold: true }] } },
  );
const names = {
  alias: "mail",
  keyspace: defaultKeyspace,
  names: [...mail("ann@acme.test", "acme"), ...mail("both@x.test", "acme", "globex")],
};
const cellId = (raw: string) => must(parseCellId(raw), "cell id");
const service = (url: string) => ({ default: { endpoints: [url] } });
const followed = () => ({ trustKeys: join(dir, "keys.json"), stateDir: join(dir, "state") });

type Page = { readonly status: number; readonly json: Record<string, unknown> };
async function get(agent: Agent, path: string): Promise<Page> {
  const response = await request(`${agent.admin}${path}`);
  const json = (await response.body.json()) as Record<string, unknown>;
  return { status: response.statusCode, json };
}
const codeOf = ({ json }: Page) => (json["error"] as { code: string } | undefined)?.code;

async function resolving(): Promise<Agent> {
  const agent = await bench.serving({ table: followed() });
  await until(
    "a table is there",
    async () => (await get(agent, "/resolve?tenant=acme")).status === 200,
  );
  return agent;
}

describe("/resolve", () => {
  test("says where a tenant lives, and whether that is here", async () => {
    const agent = await resolving();
    expect(await get(agent, "/resolve?tenant=acme")).toEqual({
      status: 200,
      json: {
        ...{ tenant: "acme", keyspace: "default", key: "default/tenant/acme" },
        ...{ cell: bench.store.name, epoch: 1, state: "active", here: true },
        ...{ endpoints: ["http://here:1"], revision: 5 },
      },
    });
    expect((await get(agent, "/resolve?tenant=globex")).json).toMatchObject({
      ...{ cell: "cell-99", epoch: 3, here: false },
      endpoints: ["http://there:1", "http://there:2"],
    });
    expect((await get(agent, "/resolve?tenant=initech")).json).toMatchObject({ state: "hold" });
    publisher.change({ globex: `cell-${cells} 4` });
    // The table says here, but this cell's database has not taken it over.
    await until("the change is here", async () => {
      const { json } = await get(agent, "/resolve?tenant=globex");
      return json["epoch"] === 4;
    });
    expect((await get(agent, "/resolve?tenant=globex")).json).toMatchObject({ here: false });
    await bench.applied(bench.control.own("default/tenant/globex", "active", 4));
    await until("both agree", async () => {
      const { json } = await get(agent, "/resolve?tenant=globex");
      return json["here"] === true;
    });
  });

  test("finds a tenant by a name that only it has", async () => {
    const agent = await resolving();
    publisher.changeNames({ aliasUpserts: [names] });
    await until("the names are here", async () => {
      const { status } = await get(agent, "/resolve?alias=mail:ann@acme.test");
      return status === 200;
    });
    const found = await get(agent, `/resolve?alias=${encodeURIComponent("mail: ANN@acme.test")}`);
    expect(found.json).toMatchObject({ tenant: "acme", here: true });
    const both = await get(agent, "/resolve?alias=mail:both@x.test");
    expect(both.status).toBe(400);
    expect(codeOf(both)).toBe("TENANT_AMBIGUOUS");
    const { details } = both.json["error"] as { details: { tenants: string[] } };
    expect(new Set(details.tenants)).toEqual(new Set(["acme", "globex"]));
    const nobody = await get(agent, "/resolve?alias=mail:secret-name@x.test");
    expect(nobody.status).toBe(404);
    expect(JSON.stringify(nobody.json)).not.toContain("secret-name");
  });

  test("answers with the control plane dead, and after a restart from disk", async () => {
    const agent = await resolving();
    await publisher.close();
    bench.control.settings.silent = true;
    expect((await get(agent, "/resolve?tenant=globex")).json).toMatchObject({ cell: "cell-99" });
    await agent.close();
    const next = await bench.start({ table: followed() });
    expect((await get(next, "/resolve?tenant=globex")).json).toMatchObject({
      ...{ cell: "cell-99", epoch: 3, revision: 5 },
    });
    publisher = await startControlPlane(firstTable());
  });

  test.each([
    ["an unknown tenant", "?tenant=nobody", 404, "TENANT_UNKNOWN"],
    ["another keyspace", "?tenant=acme&keyspace=docs", 404, "TENANT_UNKNOWN"],
    ["no tenant", "", 400, "VALIDATION_FAILED"],
    ["two questions", "?tenant=acme&alias=mail:x", 400, "VALIDATION_FAILED"],
    ["a bad id", "?tenant=a%20b", 400, "TENANT_INVALID"],
    ["a bad keyspace", "?tenant=acme&keyspace=%2F", 400, "VALIDATION_FAILED"],
    ["an alias without its namespace", "?alias=ann@acme.test", 400, "VALIDATION_FAILED"],
    ["an unknown namespace", "?alias=phone:123", 404, "TENANT_UNKNOWN"],
  ])("refuses %s", async (_what, query, status, code) => {
    const agent = await resolving();
    const answer = await get(agent, `/resolve${query}`);
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
  });

  test("says what to set when the table is not followed", async () => {
    const agent = await bench.serving();
    const answer = await get(agent, "/resolve?tenant=acme");
    expect([answer.status, codeOf(answer)]).toEqual([503, "TABLE_NOT_LOADED"]);
    expect(JSON.stringify(answer.json)).toContain("--trust-keys");
  });

  test("leads to the cell that is being adopted what no placement names", async () => {
    const table = tableOf(5, { acme: "cell-99 1" }, {}, "fleet-1", {
      cells: [
        { id: cellId(bench.store.name), stage: "observe", services: service("http://here:1") },
        { id: cellId("cell-99"), services: service("http://there:1") },
      ],
    });
    publisher.serve(table);
    const agent = await bench.serving({ table: followed() });
    await until(
      "a table is there",
      async () => (await get(agent, "/resolve?tenant=acme")).status === 200,
    );
    expect((await get(agent, "/resolve?tenant=wayne")).json).toMatchObject({
      ...{ cell: bench.store.name, epoch: null, here: true, endpoints: ["http://here:1"] },
    });
  });
});

describe("/owned", () => {
  test("lists what is active here, in pages, each key once", async () => {
    const agent = await bench.serving();
    const tenants = Array.from({ length: 25 }, (_none, nth) => `t${nth}`);
    for (const tenant of tenants) bench.control.own(`default/tenant/${tenant}`, "active", 2);
    bench.control.own("default/tenant/t3", "fenced", 3);
    await bench.applied(bench.control.own("docs/slot/7", "active", 4));
    await until("all is known", async () => {
      const { json } = await get(agent, "/owned?keyspace=docs");
      return (json["items"] as unknown[]).length === 1;
    });
    const seen: Array<{ tenant?: string; epoch: number }> = [];
    let cursor = "";
    for (let pages = 0; pages < 20; pages += 1) {
      const { json } = await get(agent, `/owned?keyspace=default&limit=7&cursor=${cursor}`);
      seen.push(...(json["items"] as typeof seen));
      if (json["next"] === null) break;
      cursor = String(json["next"]);
    }
    expect(seen.length).toBe(25);
    expect(new Set(seen.map(({ tenant }) => tenant))).toEqual(
      new Set(["acme", ...tenants].filter((tenant) => tenant !== "t3")),
    );
    expect(seen.find(({ tenant }) => tenant === "t5")?.epoch).toBe(2);
    expect((await get(agent, "/owned?keyspace=docs")).json).toMatchObject({
      items: [{ key: "docs/slot/7", keyspace: "docs", epoch: 4 }],
    });
  });

  test.each(["limit=0", "limit=99999", "cursor=x", "keyspace=%2F"])("refuses %s", async (query) => {
    const agent = await bench.serving();
    expect(codeOf(await get(agent, `/owned?${query}`))).toBe("VALIDATION_FAILED");
  });

  test("gives no list to work on to a cell without a lease", async () => {
    const agent = await bench.serving();
    bench.control.settings.leaseRefused = "not now";
    await bench.store.admin.query(
      "select cellfleet.expire_lease(max(lease_grant)) from cellfleet.lease",
    );
    await until("it is refused", async () => (await get(agent, "/owned")).status === 503);
    expect(codeOf(await get(agent, "/owned"))).toBe("LEASE_MISSING");
  });
});
