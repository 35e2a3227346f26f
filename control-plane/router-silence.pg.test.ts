/**
 * Declared = observed (promise 8), also after nobody listened: a router that served before the control
 * plane went away serves on, and cannot call. Its silence counts from when somebody listens again.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { acceptedSchema, createdTokenSchema, opSchema } from "../contract/control-api.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { eventually } from "./control.fixture.ts";
import {
  type FakeRouter,
  finish,
  type Plane,
  startFakeRouter,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let db: pg.Client;
let url: string;
let plane: Plane | undefined;
let router: FakeRouter | undefined;

beforeAll(async () => {
  postgres = await startTestPostgres();
  url = await postgres.createDatabase("silence");
  db = new pg.Client({ connectionString: url });
  await db.connect();
});
afterAll(async () => {
  await router?.stop();
  await plane?.close();
  await db?.end();
  await postgres?.stop();
});

test("a new leader waits for routers that it has not heard yet, and names them", async () => {
  const first = await startPlane(url, { instance: "plane-1" });
  plane = first;
  const token = { name: "r1", role: "router", subject: "router-1" };
  const { secret } = await first.send("POST", "/v1/tokens", token, createdTokenSchema);
  const before = startFakeRouter({ origin: () => first.url, token: secret, id: "router-1" });
  await eventually(
    async () => (await db.query("select 1 from cellfleet_control.router")).rowCount,
    (count) => count === 1,
  );
  await before.stop();
  await first.close();
  // Nobody listened for an hour.
  await db.query("update cellfleet_control.router set seen_at = now() - interval '1 hour'");

  const second = await startPlane(url, { instance: "plane-2" });
  plane = second;
  const { op } = await second.send(
    "PUT",
    "/v1/routing",
    { tenantSources: [{ header: "x-tenant" }], serviceRoutes: [] },
    acceptedSchema,
  );
  const waiting = await eventually(
    () => second.get(`/v1/ops/${op.id}`, opSchema),
    ({ headline, state }) => state !== "running" || headline.includes("router-1"),
  );
  expect(waiting).toMatchObject({ state: "running", step: "publishing" });
  router = startFakeRouter({ origin: () => second.url, token: secret, id: "router-1" });
  const done = await finish(second, op);
  expect(done.headline).toContain("1 of 1 live routers");
});
