/**
 * An hour-old backup of the control plane is restored under a living fleet: real cells with their own
 * databases and agents, a control plane over HTTP. Afterwards epochs and revision are above all that
 * was seen, and no key has two owners (corrections A5).
 */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import type { Agent } from "../cell/agent/agent.ts";
import { startAgent } from "../cell/agent/agent.ts";
import type { AgentEvents } from "../cell/agent/events.ts";
import { listOwnership } from "../cell/store/ownership.ts";
import {
  acceptedSchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  list,
  opSchema,
  statusSchema,
  type Tenant,
  tenantSchema,
} from "../contract/control-api.ts";
import { eventSchema } from "../contract/event-api.ts";
import { parseCellId } from "../contract/ids.ts";
import { recoverySchema } from "../contract/recovery-api.ts";
import { callRouter, eventually } from "../control-plane/control.fixture.ts";
import { codeOf, finish, type Plane, startPlane } from "../control-plane/plane.fixture.ts";
import { openDatabase } from "../control-plane/store/database.ts";
import { changeRouting } from "../control-plane/store/routing-change.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { createJsonClient } from "../runtime/http-client.ts";
import { createLog } from "../runtime/log.ts";
import { systemRandom } from "../runtime/random.ts";
import { type CellStore, createCellStore, storeRoles } from "./cell-store.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

const cellIds = ["cell-01", "cell-02", "cell-03"] as const;
type CellName = (typeof cellIds)[number];

let server: TestPostgres;
let plane: Plane;
const stores = new Map<CellName, CellStore>();
const tokens = new Map<CellName, string>();
const agents = new Map<CellName, Agent>();

beforeAll(async () => {
  server = await startTestPostgres();
  plane = await startPlane(await server.createDatabase("control"));
  for (const cell of cellIds) {
    stores.set(cell, await createCellStore(server, cell, { mode: "strict" }));
  }
});
afterAll(async () => {
  for (const agent of agents.values()) await agent.close();
  for (const store of stores.values()) await store.close();
  await plane?.close();
  await server?.stop();
});

async function machineToken(role: "agent" | "router", subject: string): Promise<string> {
  const body = { name: subject, role, subject };
  return (await plane.send("POST", "/v1/tokens", body, createdTokenSchema)).secret;
}

async function startCellAgent(cell: CellName): Promise<void> {
  const any = { host: "127.0.0.1", port: 0 };
  const agent = await startAgent({
    config: {
      cell: must(parseCellId(cell), "cell id"),
      listen: any,
      admin: any,
      // The control plane's own door answers `/livez`, which is all that is asked of an application here.
      services: [{ name: "default", health: undefined, upstreams: [plane.url], replicas: [] }],
      queryDatabaseUrl: undefined,
      replicaLagMs: 1000,
      goldMs: 2000,
      stores: [],
      routerSignatures: "off",
      table: undefined,
      controlPlane: plane.url,
      databaseUrl: "env:UNUSED",
      token: "env:UNUSED",
      endpoint: undefined,
    },
    databaseUrl: server.url(cell, storeRoles.agentRole),
    token: must(tokens.get(cell), "token"),
    clock: systemClock,
    random: systemRandom,
    log: createLog<AgentEvents>({
      clock: systemClock,
      part: "agent",
      level: "error",
      write: () => {},
    }),
  });
  agents.set(cell, agent);
}

async function stopCellAgent(cell: CellName): Promise<void> {
  await agents.get(cell)?.close();
  agents.delete(cell);
}

async function run(path: string, body: unknown): Promise<void> {
  const { op } = await plane.send("POST", path, body, acceptedSchema);
  expect(await finish(plane, op)).toMatchObject({ state: "done", error: null });
}

/** An unfinished drill's move and takeover, straight in the log: the operations come later. */
async function changeOwner(url: string, tenant: string, to: CellName, tellLoser: boolean) {
  const database = openDatabase({ url, onConnectionError: () => {} });
  const key = `default/tenant/${tenant}`;
  await database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    if (tellLoser) {
      await tx.execute(sql`
        insert into cellfleet_control.disowned (cell, key, state, epoch, op, revision)
        select cell, key, 'moved', epoch + 1, 'op_zz00000001', ${revision}
          from cellfleet_control.placement where key = ${key}`);
    }
    await tx.execute(sql`
      update cellfleet_control.placement set cell = ${to}, epoch = epoch + 1, state = 'pending',
             op = 'op_zz00000001', revision = ${revision} where key = ${key}`);
  });
  await database.close();
}

const tenantOf = (id: string): Promise<Tenant> => plane.get(`/v1/tenants/${id}`, tenantSchema);
const untilActive = (id: string): Promise<Tenant> =>
  eventually(
    () => tenantOf(id),
    ({ placement }) => placement.state === "active",
  );

type Owned = { readonly cell: CellName; readonly state: string; readonly epoch: number };

/** What every cell's database says, by key. */
async function ownership(): Promise<Map<string, Owned[]>> {
  const all = new Map<string, Owned[]>();
  for (const [cell, store] of stores) {
    for (const { key, state, epoch } of await listOwnership(store.admin, "", 1000)) {
      all.set(key, [...(all.get(key) ?? []), { cell, state, epoch }]);
    }
  }
  return all;
}

const ownersOf = (
  all: ReadonlyMap<string, readonly Owned[]>,
  tenant: string,
): readonly CellName[] =>
  (all.get(`default/tenant/${tenant}`) ?? [])
    .filter(({ state }) => state === "active")
    .map(({ cell }) => cell);

/** A copy of the control plane's database, as a backup is one. */
async function copyDatabase(from: string, to: string): Promise<string> {
  const database = openDatabase({ url: server.adminUrl, onConnectionError: () => {} });
  await eventually(
    async () => {
      const { rows } = await database.read.execute(
        sql`select 1 from pg_stat_activity where datname = ${from}`,
      );
      return rows.length;
    },
    (connections) => connections === 0,
  );
  await database.pool.query(`create database ${to} template ${from}`);
  await database.close();
  return server.url(to);
}

const portOf = (url: string): number => Number(new URL(url).port);

test("an hour-old backup, restored: nothing is granted until all have spoken, then one owner per key", async () => {
  for (const cell of cellIds) {
    await plane.send("POST", "/v1/cells", { id: cell, provider: "none" }, acceptedSchema);
    tokens.set(cell, await machineToken("agent", cell));
    await startCellAgent(cell);
  }
  const opened = await eventually(
    () => plane.get("/v1/cells", list(cellSchema)),
    ({ items }) => items.every(({ state, health }) => state === "active" && health === "healthy"),
  );
  expect(opened.items).toHaveLength(3);
  const home: Record<string, CellName> = {
    stays: "cell-01",
    moves: "cell-01",
    fails: "cell-01",
    dies: "cell-03",
    gone: "cell-02",
  };
  for (const [id, cell] of Object.entries(home)) await run("/v1/tenants", { id, cell });
  const routerToken = await machineToken("router", "router-1");

  // The backup.
  const port = portOf(plane.url);
  await plane.close();
  const backup = await copyDatabase("control", "backup");
  plane = await startPlane(server.url("control"), { port });

  // An hour of life that the backup knows nothing of.
  await run("/v1/tenants", { id: "fresh", cell: "cell-02" });
  await changeOwner(server.url("control"), "moves", "cell-02", true);
  await untilActive("moves");
  // A takeover whose loser was never told: a zombie that believes in its old epoch.
  await changeOwner(server.url("control"), "fails", "cell-02", false);
  await untilActive("fails");
  const before = await ownership();
  expect(ownersOf(before, "fails")).toEqual(["cell-01", "cell-02"]);
  const lived = await plane.get("/v1/status", statusSchema);
  const router = createJsonClient({
    origin: plane.url,
    token: routerToken,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  const seen = { revision: lived.revision + 40, epochMax: 2, checksum: "0".repeat(16) };

  // Disaster, and the backup; one cell is away.
  await plane.close();
  await stopCellAgent("cell-03");
  plane = await startPlane(backup, { port });
  await callRouter(router, "router-1", seen);
  const waiting = await eventually(
    () => plane.get("/v1/recovery", recoverySchema),
    ({ cells }) => cells.filter(({ state }) => state === "reported").length === 2,
  );
  expect(waiting).toMatchObject({ mode: "recovering", step: "collecting" });
  expect(waiting.cells.find(({ state }) => state === "awaited")?.cell).toBe("cell-03");
  const refusal = plane.send("POST", "/v1/tenants", { id: "too-early" }, acceptedSchema);
  expect(await codeOf(refusal)).toBe("RECOVERING");
  const told = await eventually(
    () => plane.get("/v1/status", statusSchema),
    ({ modeReason }) => modeReason.includes("cell-03"),
  );
  expect(told.mode).toBe("recovering");
  // Nothing moved in any cell meanwhile.
  expect(await ownership()).toEqual(before);

  await startCellAgent("cell-03");
  const after = await eventually(
    () => plane.get("/v1/status", statusSchema),
    ({ mode }) => mode === "normal",
  );
  expect(after.revision).toBeGreaterThan(seen.revision);
  const tenants: Record<string, Tenant> = {};
  for (const id of [...Object.keys(home), "fresh"]) tenants[id] = await untilActive(id);
  const now = await ownership();
  for (const [id, { placement }] of Object.entries(tenants)) {
    const old = before.get(placement.key) ?? [];
    expect(ownersOf(now, id), id).toEqual([placement.cell]);
    const seenMax = Math.max(...old.map(({ epoch }) => epoch));
    const isUntouched = old.length === 1 && home[id] === placement.cell;
    if (isUntouched) expect(placement.epoch, id).toBe(seenMax);
    else expect(placement.epoch, id).toBeGreaterThan(seenMax);
  }
  expect(tenants["moves"]?.placement.cell).toBe("cell-02");
  expect(tenants["fails"]?.placement.cell).toBe("cell-02");
  expect(tenants["fresh"]).toMatchObject({ labels: { recovered: "true" } });
  const zombie = now.get("default/tenant/fails")?.find(({ cell }) => cell === "cell-01");
  expect(zombie?.state).toBe("moved");

  // The router takes the new table, and life goes on: leases, changes, audit.
  const answer = await callRouter(router, "router-1", seen);
  expect(answer.answer.kind).toBe("snapshot");
  const { op } = await plane.send("POST", "/v1/tenants", { id: "afterwards" }, acceptedSchema);
  const done = await eventually(
    async () => {
      const { revision } = await plane.get("/v1/status", statusSchema);
      await callRouter(router, "router-1", { ...seen, revision });
      return plane.get(`/v1/ops/${op.id}`, opSchema);
    },
    ({ state }) => state !== "running",
  );
  expect(done).toMatchObject({ state: "done", error: null });
  await router.close();
  const grants = await eventually(
    async () => {
      const lease = await Promise.all(
        cellIds.map(async (cell) => {
          const { rows } = await must(stores.get(cell), cell).admin.query(
            "select lease_grant::int as n from cellfleet.lease",
          );
          return z.array(z.object({ n: z.number() })).parse(rows)[0]?.n ?? 0;
        }),
      );
      return lease;
    },
    (all) => all.every((grant) => grant > 0),
  );
  expect(grants).toHaveLength(3);
  const verdict = await plane.get("/v1/audit/verify", auditVerdictSchema);
  expect(verdict.ok).toBe(true);
  const events = await plane.get("/v1/events?limit=500", list(eventSchema));
  const kinds = events.items.map(({ kind }) => kind);
  for (const kind of [
    "fleet.recovering",
    "recovery.reported",
    "recovery.fencing",
    "fleet.recovered",
  ]) {
    expect(kinds).toContain(kind);
  }
});
