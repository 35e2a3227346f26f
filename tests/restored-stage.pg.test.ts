/**
 * A control plane is restored from a backup of the time when its adopted cell only observed, while the
 * cell enforces and another one owns tenants. No cell may begin to accept what another cell owns.
 */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Agent, startAgent } from "../cell/agent/agent.ts";
import type { AgentEvents } from "../cell/agent/events.ts";
import { readFacts } from "../cell/store/facts.ts";
import {
  acceptedSchema,
  cellSchema,
  createdTokenSchema,
  statusSchema,
  tenantSchema,
} from "../contract/control-api.ts";
import { parseCellId } from "../contract/ids.ts";
import { eventually } from "../control-plane/control.fixture.ts";
import { finish, type Plane, startPlane } from "../control-plane/plane.fixture.ts";
import { openDatabase } from "../control-plane/store/database.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { createLog } from "../runtime/log.ts";
import { systemRandom } from "../runtime/random.ts";
import { type CellStore, createCellStore, refusalOf, storeRoles } from "./cell-store.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

let server: TestPostgres;
let plane: Plane;
const stores = new Map<string, CellStore>();
const agents: Agent[] = [];
const cells = ["shop-01", "cell-02"] as const;

beforeAll(async () => {
  server = await startTestPostgres();
  plane = await startPlane(await server.createDatabase("control"));
  for (const cell of cells) stores.set(cell, await createCellStore(server, cell, { mode: "row" }));
});
afterAll(async () => {
  for (const agent of agents) await agent.close();
  for (const store of stores.values()) await store.close();
  await plane?.close();
  await server?.stop();
});

async function startCell(cell: (typeof cells)[number]): Promise<void> {
  const body = { name: cell, role: "agent", subject: cell };
  const token = await plane.send("POST", "/v1/tokens", body, createdTokenSchema);
  const any = { host: "127.0.0.1", port: 0 };
  agents.push(
    await startAgent({
      config: {
        cell: must(parseCellId(cell), cell),
        ...{ listen: any, admin: any, controlPlane: plane.url, endpoint: undefined },
        services: [{ name: "default", health: undefined, upstreams: [plane.url], replicas: [] }],
        ...{ queryDatabaseUrl: undefined, replicaLagMs: 1000, goldMs: 2000, table: undefined },
        stores: [],
        routerSignatures: "off",
        ...{ databaseUrl: "env:UNUSED", token: "env:UNUSED" },
      },
      databaseUrl: server.url(cell, storeRoles.agentRole),
      token: token.secret,
      clock: systemClock,
      random: systemRandom,
      log: createLog<AgentEvents>({
        ...{ clock: systemClock, part: "agent", level: "error" },
        write: () => {},
      }),
    }),
  );
  await healthy(cell);
}

const cellNow = (id: string) => plane.get(`/v1/cells/${id}`, cellSchema);
const healthy = (id: string) =>
  eventually(
    () => cellNow(id),
    (cell) => cell.health === "healthy" && cell.state === "active",
  );

async function run(path: string, body: object): Promise<void> {
  const { op } = await plane.send("POST", path, body, acceptedSchema);
  expect(await finish(plane, op)).toMatchObject({ state: "done", error: null });
}

async function copyDatabase(from: string, to: string): Promise<string> {
  const db = openDatabase({ url: server.adminUrl, onConnectionError: () => {} });
  try {
    await eventually(
      async () =>
        (await db.read.execute(sql`select 1 from pg_stat_activity where datname = ${from}`)).rows,
      (rows) => rows.length === 0,
    );
    await db.pool.query(`create database ${to} template ${from}`);
  } finally {
    await db.close();
  }
  return server.url(to);
}

const shop = () => must(stores.get("shop-01"), "its store");
const writeFor = (tenant: string) =>
  shop().app.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
    tenant,
  ]);

test("a cell that enforces stays so, whatever the backup says", { timeout: 150_000 }, async () => {
  await plane.send("POST", "/v1/cells", { id: "cell-02", provider: "none" }, acceptedSchema);
  await startCell("cell-02");
  await run("/v1/cells/adopt", {
    id: "shop-01",
    endpoints: ["http://127.0.0.1:9"],
    stores: { default: { database: "env:X", keyColumn: "tenant_id" } },
  });
  await startCell("shop-01");
  await run("/v1/tenants", { id: "acme", cell: "shop-01" });
  await run("/v1/cells/shop-01/stage", { stage: "observe" });
  const port = Number(new URL(plane.url).port);
  await plane.close();
  const backup = await copyDatabase("control", "backup");
  plane = await startPlane(server.url("control"), { port });
  await healthy("shop-01");
  await run("/v1/cells/shop-01/stage", { stage: "enforce", acceptRefusals: true });
  await run("/v1/tenants", { id: "second", cell: "cell-02" });
  expect(await refusalOf(writeFor("second"))).toBe("CF001");
  const before = await readFacts(shop().admin);

  await plane.close();
  plane = await startPlane(backup, { port });
  const recovered = async () => {
    expect((await readFacts(shop().admin)).stage).toBe("enforce");
    const { mode } = await plane.get("/v1/status", statusSchema);
    return mode === "normal" && (await cellNow("shop-01")).stage === "enforce";
  };
  await eventually(recovered, (is) => is);
  // Its database has made the new change too, which no answer from before the restore can undo.
  const after = await eventually(
    () => readFacts(shop().admin),
    ({ stageNumber }) => stageNumber > before.stageNumber,
  );
  expect(after.stage).toBe("enforce");
  const second = await plane.get("/v1/tenants/second", tenantSchema);
  expect(second.placement.cell).toBe("cell-02");
  expect(await refusalOf(writeFor("second"))).toBe("CF001");
  await eventually(
    async () =>
      writeFor("acme").then(
        () => true,
        () => false,
      ),
    (is) => is,
  );
});
