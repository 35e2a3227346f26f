/** Names of tenants reach routers: a snapshot and the sum of all deltas are the same table. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { claimAcceptedSchema } from "../../contract/claims-api.ts";
import {
  acceptedSchema,
  dryRunSchema,
  list,
  resolutionSchema,
  routerSchema,
} from "../../contract/control-api.ts";
import { routingSchema } from "../../contract/routing-api.ts";
import { deltaBodySchema } from "../../contract/routing-table.ts";
import type { TableState } from "../../contract/table-state.ts";
import { signaturePurposes } from "../../runtime/signing.ts";
import { readSnapshot } from "../../table/read.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { claimEndpoints } from "../api/claims.ts";
import { routingEndpoints } from "../api/routing.ts";
import { statusEndpoints } from "../api/status.ts";
import {
  type ControlFixture,
  callAgent,
  callRouter,
  eventually,
  openCell,
  routerRequest,
  startControl,
} from "../control.fixture.ts";
import { codeOf } from "../plane.fixture.ts";
import { releaseClaimsOf } from "../store/claims.ts";
import { insertPending } from "../store/placements.ts";
import { changeRouting } from "../store/routing-change.ts";

let postgres: TestPostgres;
let control: ControlFixture;

const tenants = Array.from({ length: 12 }, (_, index) => `t-${index}`);

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("names"), (context) => [
    ...claimEndpoints(context),
    ...routingEndpoints(context),
    ...statusEndpoints(context),
  ]);
  await openCell(control.database, "cell-01");
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    const rows = tenants.map((value) => ({
      ...{ key: `default/tenant/${value}`, keyspace: "default", kind: "tenant" as const, value },
      ...{ cell: "cell-01", op: "op_1", revision, epochMin: 1 },
    }));
    await insertPending(tx, rows);
    await tx.execute(sql`update cellfleet_control.placement set state = 'active'`);
    await tx.execute(sql`
      insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
      select value, 'default', 'standard', 0, 0, '{}', key from cellfleet_control.placement`);
  });
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

async function send<T>(
  method: "POST" | "PUT",
  path: string,
  body: object,
  schema: z.ZodType<T>,
): Promise<T> {
  const client = await control.client("operator");
  return client.call({ method, path, body, schema, timeoutMs: 20_000 });
}
const claim = (value: string, tenant: string, namespace = "domain") =>
  send("POST", "/v1/claims", { namespace, value, tenant }, claimAcceptedSchema);
const release = (value: string, tenant: string, namespace = "domain") =>
  send("POST", "/v1/claims/release", { namespace, value, tenant }, claimAcceptedSchema);

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function snapshot(token: string): Promise<TableState> {
  const response = await fetch(`${control.origin}/v1/machine/routing-table`, {
    headers: { authorization: `Bearer ${token}` },
  });
  expect(response.status).toBe(200);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const table = await readSnapshot(one(bytes), control.verifier, [1, 2]);
  if ("kind" in table) throw new Error(table.text);
  return table;
}

const published = async (): Promise<number> => {
  const { rows } = await control.database.read.execute<{ revision: number }>(
    sql`select revision::int from cellfleet_control.fleet`,
  );
  const revision = rows[0]?.revision ?? 0;
  await eventually(
    async () => control.publisher.revision(),
    (now) => now >= revision,
  );
  return revision;
};

/** What a table says of names, in one order. */
const namesOf = (table: TableState): string[] =>
  [...table.aliasGroups()]
    .flatMap(({ alias, keyspace, names }) =>
      names.map(([hash, tenant]) => `${alias} ${keyspace} ${hash} ${tenant}`),
    )
    .sort((a, b) => (a < b ? -1 : 1));

/** One step of a router: its delta is applied, or the answer is that there is none. */
async function follow(table: TableState): Promise<string> {
  const router = await control.client("router", "router-1");
  const { revision, checksum } = table;
  const { answer } = await callRouter(router, "router-1", { revision, checksum });
  if (answer.kind !== "delta") return answer.kind;
  const { body, keyId, signature } = answer.delta;
  expect(control.verifier.verify(signaturePurposes.delta, body, keyId, signature)).toBe(true);
  expect(table.apply(deltaBodySchema.parse(JSON.parse(body)))).toBeUndefined();
  return "delta";
}

describe("names in the routing table", () => {
  test("a committed name resolves, a reserved one does not, a released one no more", async () => {
    await published();
    const table = await snapshot(await control.token("router", "router-1"));
    await send(
      "POST",
      "/v1/claims/reserve",
      { namespace: "domain", value: "soon.example", tenant: "t-1" },
      z.object({}),
    );
    const { op } = await claim("Shop.Example", "t-1");
    expect(op).toMatchObject({ kind: "claim.change", state: "running" });
    expect(op.revision).toBe(await published());
    expect(await follow(table)).toBe("delta");
    expect(table.resolve("domain", "shop.EXAMPLE")).toEqual([
      { keyspace: "default", tenant: "t-1" },
    ]);
    expect(table.resolve("domain", "soon.example")).toEqual([]);
    expect(namesOf(table)).toEqual(await readClaims());
    await release("shop.example", "t-1");
    await published();
    await follow(table);
    expect(table.resolve("domain", "shop.example")).toEqual([]);
    expect(namesOf(table)).toEqual([]);
  });

  test("random changes: every router's table is the snapshot, delta by delta", async () => {
    const token = await control.token("router", "router-1");
    await published();
    const slow = await snapshot(token);
    const quick = await snapshot(token);
    let seed = 20_261_122;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    const pick = <T>(items: readonly T[]): T => items[random(items.length)] as T;
    const names = Array.from({ length: 8 }, (_, index) => `name-${index}.example`);
    const steps = [
      () => claim(pick(names), pick(tenants), "email"),
      () => claim(pick(names), pick(tenants)),
      () => release(pick(names), pick(tenants), "email"),
      () => release(pick(names), pick(tenants)),
      () =>
        control.database.transaction(async (tx) => {
          const revision = await changeRouting(tx, { config: false });
          await releaseClaimsOf(tx, "default", pick(tenants), revision);
        }),
      () =>
        control.database.transaction(async (tx) => {
          const revision = await changeRouting(tx, { config: random(3) === 0 });
          await tx.execute(sql`
            update cellfleet_control.placement set revision = ${revision}, epoch = epoch + 1,
                   state = ${pick(["active", "hold", "suspended"])}
             where value = ${pick(tenants)}`);
        }),
    ];
    const outcomes = new Set<string>();
    for (let round = 0; round < 40; round += 1) {
      for (let step = 0; step <= random(4); step += 1) {
        // A name that is another's, or nobody's: refused, and nothing changes.
        await pick(steps)().catch((error: { readonly code?: string }) => {
          outcomes.add(String(error.code));
        });
      }
      await published();
      await follow(quick);
      const fresh = await snapshot(token);
      expect(quick.revision).toBe(fresh.revision);
      expect(quick.checksum).toBe(fresh.checksum);
      expect(namesOf(quick)).toEqual(namesOf(fresh));
      if (round % 10 === 9) await follow(slow);
    }
    expect(outcomes).toEqual(new Set(["CLAIM_TAKEN", "CLAIM_UNKNOWN"]));
    await follow(slow);
    expect(namesOf(slow)).toEqual(namesOf(quick));
    expect(slow.checksum).toBe(quick.checksum);
    expect(namesOf(quick).length).toBeGreaterThan(3);
    expect(namesOf(quick)).toEqual(await readClaims());
  }, 60_000);
});

/** The rows themselves, by another road than the publisher's. */
async function readClaims(): Promise<string[]> {
  const { rows } = await control.database.read.execute<{ text: string }>(sql`
    select concat_ws(' ', c.namespace, c.keyspace, c.hash, c.tenant) as text
      from cellfleet_control.claim as c
      join cellfleet_control.claim_namespace as n on n.name = c.namespace and n.routed
     where c.state = 'committed'`);
  return rows.map(({ text }) => text).sort((a, b) => (a < b ? -1 : 1));
}

describe("routing rules", () => {
  const sources = [{ header: "x-tenant-id" }];
  const put = <T>(body: object, schema: z.ZodType<T>): Promise<T> =>
    send("PUT", "/v1/routing", { tenantSources: sources, serviceRoutes: [], ...body }, schema);
  const get = async () =>
    (await control.client("viewer")).call({
      ...{ method: "GET", path: "/v1/routing", schema: routingSchema, timeoutMs: 10_000 },
    });
  const auth = { auth: { endpoints: ["http://127.0.0.1:7001"] } };
  const route = { pathPrefix: "/login", service: "auth", class: "global" };

  test("global services travel with the table, stay where none are given, and go when told", async () => {
    await put({ globalServices: auth, serviceRoutes: [route] }, acceptedSchema);
    await put({ serviceRoutes: [route] }, acceptedSchema);
    expect((await get()).globalServices).toEqual(auth);
    await published();
    const token = await control.token("router", "router-1");
    const table = await snapshot(token);
    expect(table.lists.globalServices).toEqual(auth);
    await put({ globalServices: {} }, acceptedSchema);
    await published();
    expect(await follow(table)).toBe("delta");
    expect(table.lists.globalServices).toEqual({});
    expect(table.checksum).toBe((await snapshot(token)).checksum);
  });

  test("a global route without its service, and names that routers do not know, are refused", async () => {
    await expect(put({ serviceRoutes: [route] }, dryRunSchema)).rejects.toMatchObject({
      code: "VALIDATION_FAILED",
      message: expect.stringContaining("auth"),
      nextSteps: [expect.stringContaining("globalServices")],
    });
    const quiet = { name: "inner", cardinality: "one", routed: false };
    await send("POST", "/v1/claim-namespaces", quiet, acceptedSchema);
    const by = (alias: string) =>
      put({ tenantSources: [{ host: "{tenant}", alias }] }, dryRunSchema);
    expect(await codeOf(by("inner"))).toBe("VALIDATION_FAILED");
    expect(await codeOf(by("nothing"))).toBe("NOT_FOUND");
    expect((await get()).serviceRoutes).toEqual([]);
  });

  test("a request is resolved by name as routers do it", async () => {
    await claim("resolve.example", "t-2");
    await claim("both@resolve.example", "t-2", "email");
    await claim("both@resolve.example", "t-3", "email");
    const tenantSources = [
      { host: "{tenant}", alias: "domain" },
      { query: "mail", alias: "email" },
    ];
    await put({ tenantSources }, acceptedSchema);
    const ask = async (query: string) =>
      (await control.client("viewer")).call({
        method: "GET",
        path: `/v1/route/resolve?${query}`,
        schema: resolutionSchema,
        timeoutMs: 10_000,
      });
    expect(await ask("host=Resolve.example")).toMatchObject({ tenant: "t-2", cell: "cell-01" });
    const path = encodeURIComponent("/x?mail=Both@resolve.example");
    expect(await codeOf(ask(`host=other.example&path=${path}`))).toBe("TENANT_AMBIGUOUS");
    expect(await codeOf(ask("host=other.example"))).toBe("TENANT_MISSING");
  });
});

describe("an agent that follows the table", () => {
  test("gets what a router gets, is no router, and speaks for its own cell", async () => {
    const agent = await control.client("agent", "cell-01");
    const token = await control.token("agent", "cell-01");
    await published();
    const table = await snapshot(token);
    expect(table.aliasCount).toBeGreaterThan(0);
    const sync = (router: string, change: object = {}) =>
      agent.call({
        method: "POST",
        path: "/v1/machine/agent/table-sync",
        body: routerRequest(router, {
          revision: table.revision,
          checksum: table.checksum,
          ...change,
        }),
        schema: z.object({ revision: z.number(), answer: z.looseObject({ kind: z.string() }) }),
        timeoutMs: 20_000,
      });
    expect((await sync("cell-01")).answer.kind).toBe("unchanged");
    const waiting = sync("cell-01", { waitMs: 10_000 });
    await claim("agent.example", "t-4");
    const { answer } = await waiting;
    expect(answer.kind).toBe("delta");
    expect(await codeOf(sync("cell-02"))).toBe("FORBIDDEN");
    expect(await codeOf(callRouter(agent, "cell-01"))).toBe("FORBIDDEN");
    const { rows } = await control.database.read.execute(
      sql`select id from cellfleet_control.router where id = 'cell-01'`,
    );
    expect(rows).toEqual([]);
    const viewer = await control.token("viewer");
    const refused = await fetch(`${control.origin}/v1/machine/routing-table`, {
      headers: { authorization: `Bearer ${viewer}` },
    });
    expect(refused.status).toBe(403);
  });
});

describe("what a router would have refused", () => {
  test("is kept and shown, with the time at which it last grew", async () => {
    const router = await control.client("router", "counting");
    const say = (instance: string, wouldRefuse: Record<string, number>, revision: number) =>
      callRouter(router, "counting", { instance, wouldRefuse, revision });
    const grownAt = async () => {
      const { rows } = await control.database.read.execute<{ at: string | null }>(
        sql`select would_refuse_at::text as at from cellfleet_control.router where id = 'counting'`,
      );
      return rows[0]?.at;
    };
    // Each revision is news, so each call is written down.
    await say("a", {}, 1);
    expect(await grownAt()).toBeNull();
    await say("a", { TENANT_MISSING: 2 }, 2);
    const first = await grownAt();
    expect(first).not.toBeNull();
    await say("a", { TENANT_MISSING: 2 }, 3);
    expect(await grownAt()).toBe(first);
    await say("b", { TENANT_MISSING: 1 }, 4);
    const second = await grownAt();
    expect(second).not.toBe(first);
    await say("b", { TENANT_MISSING: 1, TENANT_UNKNOWN: 1 }, 5);
    expect(await grownAt()).not.toBe(second);
    const { items } = await (await control.client("viewer")).call({
      ...{ method: "GET", path: "/v1/routers", schema: list(routerSchema), timeoutMs: 10_000 },
    });
    expect(items.find(({ id }) => id === "counting")?.wouldRefuse).toEqual({
      TENANT_MISSING: 1,
      TENANT_UNKNOWN: 1,
    });
  });
});

test("services that agents report are where routers send requests, and nothing else", async () => {
  const agent = await control.client("agent", "cell-01");
  await control.database.read.execute(sql`
    update cellfleet_control.cell set services = '{"legacy":{"endpoints":["http://127.0.0.1:9"]}}'`);
  await callAgent(agent, "cell-01", { services: ["default", "api"] });
  await published();
  const token = await control.token("router", "router-1");
  const gate = { endpoints: ["http://127.0.0.1:9301"] };
  const cells = async () => (await snapshot(token)).lists.cells;
  expect(await cells()).toEqual([
    { id: "cell-01", region: "local", services: { default: gate, api: gate } },
  ]);
  await control.database.transaction(async (tx) => {
    await changeRouting(tx, { config: true });
    await tx.execute(sql`update cellfleet_control.cell set stage = 'pass-through'`);
  });
  await published();
  expect(await cells()).toEqual([
    {
      ...{ id: "cell-01", region: "local", stage: "pass-through" },
      services: { legacy: { endpoints: ["http://127.0.0.1:9"] } },
    },
  ]);
});

// The last one: the snapshot of a table this large is shared for a while, and lags behind.
test("a bulk is read at leisure, and told in groups", async () => {
  const token = await control.token("router", "router-1");
  await published();
  const table = await snapshot(token);
  const before = table.aliasCount;
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await tx.execute(sql`
      insert into cellfleet_control.claim (namespace, hash, keyspace, tenant, state, exclusive, revision)
      select 'email', translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_')::varchar(21) || 'A',
             'default', 't-1', 'committed', false, ${revision} from generate_series(1, 25000) as n`);
  });
  await published();
  expect(await follow(table)).toBe("delta");
  expect(table.aliasCount).toBe(before + 25_000);
  const fresh = await snapshot(token);
  expect(fresh.aliasCount).toBe(before + 25_000);
  expect(fresh.checksum).toBe(table.checksum);
}, 120_000);
