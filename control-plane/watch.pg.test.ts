/** What is watched and asked for: events, routing rules, the audit log. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  acceptedSchema,
  auditEntrySchema,
  createdTokenSchema,
  list,
  type Op,
  resolutionSchema,
} from "../contract/control-api.ts";
import { eventSchema } from "../contract/event-api.ts";
import { flagSchema, ringSchema, routingSchema } from "../contract/routing-api.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import {
  codeOf,
  type FakeProvider,
  type FakeRouter,
  finish,
  type Plane,
  startFakeProvider,
  startFakeRouter,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let provider: FakeProvider;
let plane: Plane;
let router: FakeRouter;

const succeed = async (path: string, body: unknown = {}): Promise<Op> => {
  const { op } = await plane.send("POST", path, body, acceptedSchema);
  const done = await finish(plane, op);
  expect(done.error).toBeNull();
  return done;
};

beforeAll(async () => {
  postgres = await startTestPostgres();
  provider = await startFakeProvider(() => plane.url);
  plane = await startPlane(await postgres.createDatabase("watch"), { providerUrl: provider.url });
  const { secret } = await plane.send(
    "POST",
    "/v1/tokens",
    { name: "r1", role: "router", subject: "router-1" },
    createdTokenSchema,
  );
  router = startFakeRouter({ origin: () => plane.url, token: secret, id: "router-1" });
  await Promise.all(["cell-01", "cell-02"].map((id) => succeed("/v1/cells", { id })));
  await succeed("/v1/tenants", { id: "acme" });
  await succeed("/v1/cells/cell-01/cordon");
});
afterAll(async () => {
  await router?.stop();
  await provider?.stop();
  await plane?.close();
  await postgres?.stop();
});

describe("watching", () => {
  test("a watcher of events is answered when one happens, not before, and misses none", async () => {
    const { items } = await plane.get("/v1/events?limit=1", list(eventSchema));
    const last = items.at(-1)?.id ?? 0;
    const watching = plane.get(`/v1/events?after=${last}&waitMs=20000`, list(eventSchema));
    await succeed("/v1/tenants", { id: "watched" });
    const seen = await watching;
    expect(seen.items[0]?.id).toBeGreaterThan(last);
    const since = await plane.get(`/v1/events?after=${last}`, list(eventSchema));
    expect(since.items.map(({ object }) => object)).toContain("watched");
  });

  test("without news a watcher is answered with nothing, at its time", async () => {
    const { items } = await plane.get("/v1/events?limit=1", list(eventSchema));
    const after = (items.at(-1)?.id ?? 0) + 1000;
    const empty = await plane.get(`/v1/events?after=${after}&waitMs=50`, list(eventSchema));
    expect(empty.items).toEqual([]);
  });
});

describe("routing rules", () => {
  const put = (body: object) => plane.send("PUT", "/v1/routing", body, acceptedSchema);
  test("are replaced as a whole, and done when the routers have them", async () => {
    const before = await plane.get("/v1/routing", routingSchema);
    expect(before.tenantSources).toEqual([
      { header: "x-tenant-id" },
      { host: "{tenant}.localhost" },
    ]);
    const tenantSources = [{ path: "/t/{tenant}" }, { header: "x-tenant-id" }];
    const serviceRoutes = [{ pathPrefix: "/billing", service: "billing" }];
    const { op } = await put({ tenantSources, serviceRoutes });
    expect((await finish(plane, op)).state).toBe("done");
    expect(await plane.get("/v1/routing", routingSchema)).toEqual({
      ...{ tenantSources, serviceRoutes },
      ...{ globalServices: {}, policy: {} },
    });
    const found = await plane.get("/v1/route/resolve?path=/t/acme/x", resolutionSchema);
    expect(found.tenant).toBe("acme");
    expect(await codeOf(plane.get("/v1/route/resolve?host=acme.localhost", resolutionSchema))).toBe(
      "TENANT_MISSING",
    );
  });
  test("that name an unknown keyspace, or none at all, are refused", async () => {
    const source = { header: "x", keyspace: "nowhere" };
    expect(await codeOf(put({ tenantSources: [source], serviceRoutes: [] }))).toBe(
      "KEYSPACE_UNKNOWN",
    );
    expect(await codeOf(put({ tenantSources: [], serviceRoutes: [] }))).toBe("VALIDATION_FAILED");
  });
});

describe("feature flags and rings", () => {
  const put = (path: string, body: object) => plane.send("PUT", path, body, acceptedSchema);
  test("are changed one by one, published with the table, and keep the other rules", async () => {
    const before = await plane.get("/v1/routing", routingSchema);
    await put("/v1/rings/canary", { cells: [] });
    const { op } = await put("/v1/flags/editor", { tenants: ["acme"], rings: ["canary"] });
    await put("/v1/flags/search", { everywhere: true });
    expect((await finish(plane, op)).state).toBe("done");
    expect((await plane.get("/v1/flags", list(flagSchema))).items).toEqual([
      { id: "editor", tenants: ["acme"], rings: ["canary"] },
      { id: "search", everywhere: true },
    ]);
    await plane.send("DELETE", "/v1/flags/search", {}, acceptedSchema);
    expect(await plane.get("/v1/routing", routingSchema)).toEqual({
      ...before,
      policy: {
        rings: { canary: [] },
        flags: { editor: { tenants: ["acme"], rings: ["canary"] } },
      },
    });
    const remove = (path: string) => codeOf(plane.send("DELETE", path, {}, acceptedSchema));
    expect(await remove("/v1/flags/search")).toBe("FLAG_UNKNOWN");
    // A flag is on in it: forgotten, the flag would be off in silence.
    expect(await remove("/v1/rings/canary")).toBe("RING_UNKNOWN");
    await plane.send("DELETE", "/v1/flags/editor", {}, acceptedSchema);
    await plane.send("DELETE", "/v1/rings/canary", {}, acceptedSchema);
  });
  test("that name a cell or ring which is not there, or have no proper name, are refused", async () => {
    expect(await codeOf(put("/v1/flags/early", { rings: ["nowhere"] }))).toBe("RING_UNKNOWN");
    expect(await codeOf(put("/v1/rings/canary", { cells: ["cell-99"] }))).toBe("CELL_UNKNOWN");
    expect(await codeOf(put("/v1/flags/Odd%20Name", { everywhere: true }))).toBe(
      "VALIDATION_FAILED",
    );
    expect((await plane.get("/v1/rings", list(ringSchema))).items).toEqual([]);
  });
});

test("the audit log is asked by actor, object, action and time", async () => {
  const ask = (query: string) => plane.get(`/v1/audit?limit=1000&${query}`, list(auditEntrySchema));
  const about = await ask("object=cell-01");
  expect(about.items.length).toBeGreaterThan(1);
  expect(new Set(about.items.map(({ object }) => object))).toEqual(new Set(["cell-01"]));
  const cordons = await ask("object=cell-01&action=cell.cordon&actor=bootstrap");
  expect(cordons.items.length).toBeGreaterThan(0);
  expect((await ask("actor=nobody")).items).toEqual([]);
  expect((await ask("since=2099-01-01T00:00:00Z")).items).toEqual([]);
  expect(await codeOf(ask("since=yesterday"))).toBe("VALIDATION_FAILED");
});
