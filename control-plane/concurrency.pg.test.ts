/** Many at once: capacity is never overfilled, a key is answered once, an id is given once. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { acceptedSchema, auditVerdictSchema, type Op } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { systemClock } from "../runtime/clock.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { auditEndpoints } from "./api/audit.ts";
import { tenantEndpoints } from "./api/tenants.ts";
import { createTurnstile } from "./api/turnstile.ts";
import { type ControlFixture, openCell, startControl } from "./control.fixture.ts";
import { codeOf } from "./plane.fixture.ts";
import { claimIdempotencyKey } from "./store/idempotency.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let client: JsonClient;
let databases = 0;

beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});
beforeEach(async () => {
  await control?.close();
  databases += 1;
  const url = await postgres.createDatabase(`concurrency${databases}`);
  control = await startControl(url, (context) => [
    ...tenantEndpoints(context),
    ...auditEndpoints(context),
  ]);
  client = await control.client("operator");
});

const create = (id: string, more: object = {}, headers: Record<string, string> = {}) =>
  client.call({
    method: "POST",
    path: "/v1/tenants",
    body: { id, ...more },
    headers,
    schema: acceptedSchema,
    timeoutMs: 60_000,
  });

type Outcome = { readonly op: Op | undefined; readonly code: string };
async function outcomeOf(call: Promise<{ readonly op: Op }>): Promise<Outcome> {
  try {
    return { op: (await call).op, code: "accepted" };
  } catch (error) {
    if (error instanceof CellError) return { op: undefined, code: error.code };
    throw error;
  }
}
const count = (outcomes: readonly Outcome[], code: string): number =>
  outcomes.filter((one) => one.code === code).length;

const usage = async () => {
  const { rows } = await control.database.read.execute<{
    id: string;
    used: number;
    placed: number;
    bytes: number;
  }>(sql`
    select c.id, c.used_tenants::int as used, c.used_bytes::int as bytes,
           (select count(*)::int from cellfleet_control.placement as p
             where p.cell = c.id and not p.deleted) as placed
      from cellfleet_control.cell as c order by c.id`);
  return rows;
};

describe("capacity", () => {
  test("500 creations at once into room for 200: exactly 200 are placed, no cell is overfilled", async () => {
    await openCell(control.database, "cell-01", { tenants: 50 });
    await openCell(control.database, "cell-02", { tenants: 70 });
    await openCell(control.database, "cell-03", { tenants: 80 });
    const outcomes = await Promise.all(
      Array.from({ length: 500 }, (_, index) => outcomeOf(create(`tenant-${index}`))),
    );
    expect(count(outcomes, "accepted")).toBe(200);
    expect(count(outcomes, "CAPACITY_EXHAUSTED")).toBe(300);
    expect(await usage()).toEqual([
      { id: "cell-01", used: 50, placed: 50, bytes: 0 },
      { id: "cell-02", used: 70, placed: 70, bytes: 0 },
      { id: "cell-03", used: 80, placed: 80, bytes: 0 },
    ]);
  });

  test("bytes count too: ten tenants of 30 into three cells of 100", async () => {
    for (const id of ["cell-01", "cell-02", "cell-03"]) {
      await openCell(control.database, id, { bytes: 100 });
    }
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        outcomeOf(create(`tenant-${index}`, { size: { bytes: 30 } })),
      ),
    );
    expect(count(outcomes, "accepted")).toBe(9);
    expect((await usage()).map(({ bytes }) => bytes)).toEqual([90, 90, 90]);
  });

  test("the same id fifty times at once: one tenant, one reservation", async () => {
    await openCell(control.database, "cell-01");
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => outcomeOf(create("acme"))));
    expect(count(outcomes, "accepted")).toBe(1);
    expect(count(outcomes, "TENANT_EXISTS")).toBe(49);
    expect((await usage())[0]).toMatchObject({ used: 1, placed: 1 });
  });
});

describe("idempotency keys", () => {
  beforeEach(() => openCell(control.database, "cell-01"));
  const key = (value: string) => ({ "idempotency-key": value });

  test("the same request again gets the same answer, and nothing is done twice", async () => {
    const first = await create("acme", {}, key("k1"));
    const second = await create("acme", {}, key("k1"));
    expect(second).toEqual(first);
    expect((await usage())[0]?.used).toBe(1);
  });

  test("another request with the key is refused; another caller's key is another key", async () => {
    await create("acme", {}, key("k1"));
    expect(await codeOf(create("globex", {}, key("k1")))).toBe("IDEMPOTENCY_MISMATCH");
    const other = await control.client("operator");
    const answer = await other.call({
      method: "POST",
      path: "/v1/tenants",
      body: { id: "globex" },
      headers: key("k1"),
      schema: acceptedSchema,
      timeoutMs: 10_000,
    });
    expect(answer.op.object).toBe("globex");
  });

  test("thirty at once: one is done, each of the others is that answer or in flight", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 30 }, () => outcomeOf(create("acme", {}, key("k1")))),
    );
    const ids = new Set(outcomes.flatMap(({ op }) => (op === undefined ? [] : [op.id])));
    expect(ids.size).toBe(1);
    expect(count(outcomes, "accepted") + count(outcomes, "IDEMPOTENCY_IN_FLIGHT")).toBe(30);
    expect((await usage())[0]?.used).toBe(1);
  });

  test("a request that is being served says so, and one that crashed leaves no lock", async () => {
    const token = await control.database.read.execute<{ id: string }>(
      sql`select id from cellfleet_control.token where role = 'operator' order by created_at desc limit 1`,
    );
    const tokenId = token.rows[0]?.id ?? "";
    const held = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const crashing = control.database.transaction(async (tx) => {
      await claimIdempotencyKey(tx, { tokenId, key: "k1", requestHash: "x" });
      begun.resolve();
      await held.promise;
      throw new Error("crash");
    });
    await begun.promise;
    expect(await codeOf(create("acme", {}, key("k1")))).toBe("IDEMPOTENCY_IN_FLIGHT");
    held.resolve();
    await expect(crashing).rejects.toThrow("crash");
    expect((await create("acme", {}, key("k1"))).op.object).toBe("acme");
  });

  test("a refusal leaves no trace under the key: it may be tried again when there is room", async () => {
    expect(await codeOf(create("acme", { cell: "cell-02" }, key("k1")))).toBe("CELL_UNKNOWN");
    await openCell(control.database, "cell-02");
    const answer = await create("acme", { cell: "cell-02" }, key("k1"));
    expect(answer.op.object).toBe("acme");
  });
});

describe("the queue before the fleet's lock", () => {
  const options = { clock: systemClock, lanes: 1, queueMax: 2, waitMsMax: 60_000 };
  test("is bounded in number, and lets the waiting in one by one", async () => {
    const turnstile = createTurnstile(options);
    const gate = Promise.withResolvers<void>();
    const order: number[] = [];
    const pass = (index: number) =>
      turnstile.pass(async () => {
        await gate.promise;
        order.push(index);
      });
    const [first, second, third] = [pass(1), pass(2), pass(3)];
    await expect(pass(4)).rejects.toMatchObject({ code: "CONTROL_PLANE_UNREACHABLE" });
    gate.resolve();
    await Promise.all([first, second, third]);
    expect(order).toEqual([1, 2, 3]);
    expect(turnstile.waiting()).toBe(0);
  });
  test("is bounded in time, and a lane is not lost with who gave up", async () => {
    const turnstile = createTurnstile({ ...options, waitMsMax: 10 });
    const gate = Promise.withResolvers<void>();
    const first = turnstile.pass(() => gate.promise);
    await expect(turnstile.pass(() => Promise.resolve())).rejects.toMatchObject({
      code: "CONTROL_PLANE_UNREACHABLE",
    });
    gate.resolve();
    await first;
    expect(await turnstile.pass(() => Promise.resolve("in"))).toBe("in");
  });
});

test("the audit chain holds under a hundred changes at once", async () => {
  await openCell(control.database, "cell-01", { tenants: 60 });
  await Promise.all(Array.from({ length: 100 }, (_, index) => outcomeOf(create(`t-${index}`))));
  const verdict = await client.call({
    method: "GET",
    path: "/v1/audit/verify",
    schema: auditVerdictSchema,
    timeoutMs: 10_000,
  });
  expect(verdict).toMatchObject({ ok: true, entries: 100 });
});
