/** Names of tenants: one winner, whoever asks how; free again in time; and nowhere kept in clear. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  type Claim,
  claimAcceptedSchema,
  claimCheckSchema,
  claimNamespaceSchema,
  claimSchema,
  reservedSchema,
} from "../contract/claims-api.ts";
import { acceptedSchema, dryRunSchema, list } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { systemRandom } from "../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { auditEndpoints } from "./api/audit.ts";
import { claimEndpoints } from "./api/claims.ts";
import { tenantEndpoints } from "./api/tenants.ts";
import { type ControlFixture, openCell, soleRow, startControl } from "./control.fixture.ts";
import { codeOf } from "./plane.fixture.ts";
import { findClaim, releaseClaimsOf, reserveClaim, tidyClaims } from "./store/claims.ts";
import { prepareDatabase } from "./store/database.ts";
import { changeRouting } from "./store/routing-change.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let client: JsonClient;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("claims"), (context) => [
    ...claimEndpoints(context),
    ...tenantEndpoints(context),
    ...auditEndpoints(context),
  ]);
  client = await control.client("operator");
  await openCell(control.database, "cell-01");
  for (const id of ["acme", "globex", "initech"]) await send("/v1/tenants", { id }, acceptedSchema);
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

function send<T>(
  path: string,
  body: object,
  schema: z.ZodType<T>,
  headers: Readonly<Record<string, string>> = {},
): Promise<T> {
  return client.call({ method: "POST", path, body, schema, headers, timeoutMs: 60_000 });
}
const get = <T>(path: string, schema: z.ZodType<T>, as = client): Promise<T> =>
  as.call({ method: "GET", path, schema, timeoutMs: 10_000 });

const reserve = (value: string, tenant: string, more: object = {}) =>
  send("/v1/claims/reserve", { namespace: "domain", value, tenant, ...more }, reservedSchema);
const claim = (value: string, tenant: string, namespace = "domain") =>
  send("/v1/claims", { namespace, value, tenant }, claimAcceptedSchema);
const commit = (reservation: string) =>
  send("/v1/claims/commit", { reservation }, claimAcceptedSchema);
const release = (value: string, tenant: string) =>
  send("/v1/claims/release", { namespace: "domain", value, tenant }, claimAcceptedSchema);
const check = (value: string, namespace = "domain", as = client) =>
  as.call({
    method: "POST",
    path: "/v1/claims/check",
    body: { namespace, value },
    schema: claimCheckSchema,
    timeoutMs: 10_000,
  });
const claimsOf = async (tenant: string): Promise<Claim[]> =>
  (await get(`/v1/claims?tenant=${tenant}`, list(claimSchema))).items;

/** The reservation's time is over, without waiting for it. */
const expire = (id: string) =>
  control.database.read.execute(
    sql`update cellfleet_control.claim set expires_at = clock_timestamp() - interval '1 ms'
         where reservation = ${id}`,
  );

async function codeAndDetails(call: Promise<unknown>) {
  try {
    await call;
  } catch (error) {
    if (error instanceof CellError) return { code: error.code, details: error.details };
    throw error;
  }
  throw new Error("the call was accepted");
}

describe("kinds of names", () => {
  test("every fleet has four, also one that is older than names", async () => {
    const { items } = await get("/v1/claim-namespaces", list(claimNamespaceSchema));
    expect(
      items.map(({ name, cardinality, fold, routed }) => [name, cardinality, fold, routed]),
    ).toEqual([
      ["api-key", "one", false, true],
      ["domain", "one", true, true],
      ["email", "many", true, true],
      ["webhook", "one", false, true],
    ]);
    const { database } = control;
    const revision = async () =>
      soleRow(
        (
          await database.read.execute<{ revision: number; config: number }>(
            sql`select revision::int, config_revision::int as config from cellfleet_control.fleet`,
          )
        ).rows,
      );
    const before = await revision();
    await prepareDatabase(database, systemRandom);
    expect(await revision()).toEqual(before);
    await database.read.execute(
      sql`delete from cellfleet_control.claim_namespace where name = 'webhook'`,
    );
    await prepareDatabase(database, systemRandom);
    const after = await revision();
    expect(after.config).toBe(before.revision + 1);
    expect((await get("/v1/claim-namespaces", list(claimNamespaceSchema))).items).toHaveLength(4);
  });

  test("routers are told of a hundred at most: one more would stop the table for everybody", async () => {
    const { read } = control.database;
    await read.execute(sql`
      insert into cellfleet_control.claim_namespace (name, cardinality, fold, routed)
      select 'filler-' || n || 'x', 'one', false, true from generate_series(1, 96) as n`);
    const wanted = (routed: boolean) =>
      send(
        "/v1/claim-namespaces",
        { name: "the-101st", cardinality: "one", routed, dryRun: true },
        dryRunSchema,
      );
    expect(await codeOf(wanted(true))).toBe("STATE_CONFLICT");
    await wanted(false);
    await read.execute(
      sql`delete from cellfleet_control.claim_namespace where name like 'filler-%'`,
    );
    await wanted(true);
  });

  test("one more is made once, and one that is missing is told with the nearest", async () => {
    const body = { name: "sso-group", cardinality: "many", routed: false };
    const made = await send("/v1/claim-namespaces", body, acceptedSchema);
    expect(made.op).toMatchObject({ kind: "claim.change", state: "done" });
    expect(await codeOf(send("/v1/claim-namespaces", body, acceptedSchema))).toBe("STATE_CONFLICT");
    const wrong = claim("blue", "acme", "sso-grup");
    await expect(wrong).rejects.toMatchObject({
      code: "NOT_FOUND",
      nextSteps: expect.arrayContaining(["Did you mean sso-group?"]),
    });
  });
});

describe("one name, one tenant", () => {
  test("a thousand reservations of one name at once: exactly one is accepted", async () => {
    const ids = Array.from({ length: 50 }, (_, index) => `racer-${index}`);
    await Promise.all(ids.map((id) => send("/v1/tenants", { id }, acceptedSchema)));
    const outcomes = await Promise.all(
      Array.from({ length: 1000 }, async (_, index) => {
        const tenant = `racer-${index % 50}`;
        try {
          const { reservation } = await reserve("race.example", tenant);
          return { tenant, reservation };
        } catch (error) {
          if (error instanceof CellError) return { tenant, code: error.code };
          throw error;
        }
      }),
    );
    const winners = outcomes.filter((one) => "reservation" in one);
    expect(new Set(winners.map(({ tenant }) => tenant)).size).toBe(1);
    // The winner asked twenty times: each time it got the same reservation.
    expect(winners).toHaveLength(20);
    expect(new Set(winners.map((one) => "reservation" in one && one.reservation)).size).toBe(1);
    expect(new Set(outcomes.flatMap((one) => ("code" in one ? [one.code] : [])))).toEqual(
      new Set(["CLAIM_TAKEN"]),
    );
  }, 120_000);

  test("the index decides, also where nobody holds the fleet's lock", async () => {
    const { database } = control;
    const key = { namespace: "domain", hash: "A".repeat(22), keyspace: "default" };
    // One that ran out stands there first: it is freed by whoever comes.
    await database.transaction((tx) =>
      reserveClaim(tx, { ...key, tenant: "late" }, { exclusive: true, ttlSeconds: 60, id: "late" }),
    );
    await expire("late");
    const won = await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        database.transaction((tx) =>
          reserveClaim(
            tx,
            { ...key, tenant: `t-${index}` },
            { exclusive: true, ttlSeconds: 60, id: `id-${index}` },
          ),
        ),
      ),
    );
    expect(won.filter((row) => row !== undefined)).toHaveLength(1);
  });

  test("again for the same tenant is the same; for another it names the owner to operators", async () => {
    const first = await reserve("same.example", "acme", { ttlSeconds: 60 });
    const again = await reserve("SAME.example ", "acme", { ttlSeconds: 3600 });
    expect(again.reservation).toBe(first.reservation);
    expect(Date.parse(again.claim.expiresAt ?? "")).toBeGreaterThan(
      Date.parse(first.claim.expiresAt ?? ""),
    );
    expect(await codeAndDetails(reserve("same.example", "globex"))).toMatchObject({
      code: "CLAIM_TAKEN",
      details: { tenant: "acme", state: "reserved" },
    });
    const committed = await commit(first.reservation);
    expect(committed.claim).toMatchObject({ tenant: "acme", state: "committed", expiresAt: null });
    // Commit once more, and reserve once more: nothing is lost, nothing is done.
    const second = await commit(first.reservation);
    expect(second.op).toMatchObject({ state: "done", revision: null });
    expect((await reserve("same.example", "acme")).claim.state).toBe("committed");
    expect(await codeOf(claim("same.example", "globex"))).toBe("CLAIM_TAKEN");
    expect(
      await codeOf(send("/v1/claims/release", { reservation: first.reservation }, z.any())),
    ).toBe("STATE_CONFLICT");
  });

  test("upper and lower case are one domain and two API keys", async () => {
    await claim("Fold.Example", "acme");
    expect(await codeOf(claim("fold.example", "globex"))).toBe("CLAIM_TAKEN");
    await claim("Key-1", "acme", "api-key");
    await claim("key-1", "globex", "api-key");
  });

  test("a mail address may be several tenants'", async () => {
    await claim("ada@example.org", "acme", "email");
    await claim("Ada@Example.org", "globex", "email");
    const found = await check("ada@example.org", "email");
    expect(found).toMatchObject({ taken: true, state: "committed" });
    expect(found.claims?.map(({ tenant }) => tenant)).toEqual(["acme", "globex"]);
    expect(found.tenant).toBeUndefined();
  });
});

describe("reserve, commit, expire and release, many at once", () => {
  test("never two owners, and no commit beside somebody else's", async () => {
    const tenants = ["acme", "globex", "race-3"];
    await send("/v1/tenants", { id: "race-3" }, acceptedSchema);
    let seed = 7;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    const ids = new Map<string, string>();
    const seen = { committed: 0, released: 0, refused: 0, expired: 0 };
    const { read } = control.database;

    async function act(tenant: string, what: number): Promise<"commit" | "release" | "none"> {
      if (what < 3) {
        ids.set(tenant, (await reserve("crowd.example", tenant)).reservation);
        return "none";
      }
      if (what < 5) {
        await commit(ids.get(tenant) ?? `domain.${"A".repeat(22)}.${"0".repeat(32)}`);
        return "commit";
      }
      if (what < 6) {
        await release("crowd.example", tenant);
        return "release";
      }
      const { rowCount } = await read.execute(sql`
        update cellfleet_control.claim set expires_at = clock_timestamp() - interval '1 ms'
         where tenant = ${tenant} and state = 'reserved' and reservation = ${ids.get(tenant) ?? ""}`);
      seen.expired += rowCount ?? 0;
      return "none";
    }

    let owner: string | undefined;
    // All of it has to happen, or the test would show nothing; what happens is chance, so it goes on.
    const often = 6;
    const enough = () => Object.values(seen).every((times) => times >= often);
    for (let round = 0; round < 60 || !enough(); round += 1) {
      const done = await Promise.all(
        Array.from({ length: 8 }, async () => {
          const tenant = tenants[random(3)] ?? "acme";
          try {
            return { tenant, did: await act(tenant, random(7)) };
          } catch (error) {
            if (!(error instanceof CellError)) throw error;
            expect(["CLAIM_TAKEN", "CLAIM_UNKNOWN"]).toContain(error.code);
            seen.refused += 1;
            return { tenant, did: "none" as const };
          }
        }),
      );
      const by = (did: string) =>
        new Set(done.filter((one) => one.did === did).map(({ tenant }) => tenant));
      const [commits, releases] = [by("commit"), by("release")];
      seen.committed += commits.size;
      seen.released += releases.size;
      // Another owner than before needs a release in between.
      const others = [...commits].filter((tenant) => tenant !== owner).length;
      expect(others).toBeLessThanOrEqual(releases.size + (owner === undefined ? 1 : 0));
      const { claims = [] } = await check("crowd.example");
      expect(claims.length).toBeLessThanOrEqual(1);
      owner = claims.find(({ state }) => state === "committed")?.tenant;
      if (owner !== undefined && commits.size > 0 && releases.size === 0) {
        expect([...commits]).toEqual([owner]);
      }
    }
    expect(enough()).toBe(true);
  }, 60_000);
});

describe("a reservation ends", () => {
  test("by its time: free at once, and its id is worth nothing then", async () => {
    const old = await reserve("expired.example", "acme");
    await expire(old.reservation);
    expect(await check("expired.example")).toMatchObject({ taken: false, state: "free" });
    expect(await codeOf(commit(old.reservation))).toBe("CLAIM_UNKNOWN");
    expect((await claimsOf("acme")).some(({ hash }) => hash === old.claim.hash)).toBe(false);
    const next = await reserve("expired.example", "globex");
    expect(await codeOf(commit(old.reservation))).toBe("CLAIM_UNKNOWN");
    expect((await commit(next.reservation)).claim.tenant).toBe("globex");
    expect(await codeOf(commit(old.reservation))).toBe("CLAIM_UNKNOWN");
  });

  test("by its time, for the tenant itself: it gets another id", async () => {
    const old = await reserve("again.example", "acme");
    await expire(old.reservation);
    const next = await reserve("again.example", "acme");
    expect(next.reservation).not.toBe(old.reservation);
    expect(await codeOf(commit(old.reservation))).toBe("CLAIM_UNKNOWN");
    expect((await commit(next.reservation)).claim.state).toBe("committed");
  });

  test("by release, by its id or by name; others cannot release it", async () => {
    const one = await reserve("given-back.example", "acme");
    expect(await codeOf(release("given-back.example", "globex"))).toBe("CLAIM_UNKNOWN");
    await send("/v1/claims/release", { reservation: one.reservation }, claimAcceptedSchema);
    expect(await codeOf(commit(one.reservation))).toBe("CLAIM_UNKNOWN");
    const two = await reserve("given-back.example", "globex");
    await commit(two.reservation);
    const released = await release("given-back.example", "globex");
    expect(released.claim.state).toBe("released");
    expect(released.op.revision).not.toBeNull();
    expect(await codeOf(release("given-back.example", "globex"))).toBe("CLAIM_UNKNOWN");
    await claim("given-back.example", "acme");
  });

  test("what routers never heard of is tidied away, what they know stays as a tombstone", async () => {
    const { database } = control;
    const unseen = await reserve("tidy-1.example", "acme");
    await expire(unseen.reservation);
    const seen = await claim("tidy-2.example", "acme");
    await release("tidy-2.example", "acme");
    await database.transaction(tidyClaims);
    const at = (one: Claim) => findClaim(database.read, { ...one });
    expect(await at(unseen.claim)).toBeUndefined();
    expect(await at(seen.claim)).toMatchObject({ state: "released" });
  });

  test("by the end of the tenant, which takes all of its names with it", async () => {
    const { database } = control;
    await claim("end.example", "initech");
    await reserve("end-soon.example", "initech");
    expect(await claimsOf("initech")).toHaveLength(2);
    const [revision, count] = await database.transaction(async (tx) => {
      const next = await changeRouting(tx, { config: false });
      return [next, await releaseClaimsOf(tx, "default", "initech", next)];
    });
    expect(count).toBe(2);
    expect(await claimsOf("initech")).toEqual([]);
    const { rows } = await database.read.execute<{ revision: number | null }>(
      sql`select revision::int from cellfleet_control.claim where tenant = 'initech'
           order by revision nulls last`,
    );
    expect(rows.map((row) => row.revision)).toEqual([revision, null]);
    await claim("end.example", "globex");
  });
});

describe("who gets a name", () => {
  test("a tenant that exists, and is not being deleted", async () => {
    expect(await codeOf(claim("nobody.example", "nobody"))).toBe("TENANT_UNKNOWN");
    const { read } = control.database;
    await send("/v1/tenants", { id: "doomed" }, acceptedSchema);
    const held = await reserve("doomed.example", "doomed");
    // From the record of its deletion on a tenant's id is spent, while its rows are still being removed.
    await read.execute(
      sql`insert into cellfleet_control.tombstone (keyspace, tenant, op)
          values ('default', 'gone', 'op_1'), ('default', 'doomed', 'op_2')`,
    );
    expect(await codeOf(claim("doomed-2.example", "doomed"))).toBe("TENANT_DELETED");
    expect(await codeOf(commit(held.reservation))).toBe("TENANT_DELETED");
    expect(await codeOf(claim("gone.example", "gone"))).toBe("TENANT_DELETED");
  });

  test("a dry run changes nothing, and sees who has it", async () => {
    const body = { namespace: "domain", value: "dry.example", tenant: "acme", dryRun: true };
    const { plan } = await send("/v1/claims", body, dryRunSchema);
    expect(plan.steps.map(({ action }) => action)).toEqual(["commit", "publish"]);
    expect(await check("dry.example")).toMatchObject({ taken: false });
    await claim("dry.example", "globex");
    expect(await codeOf(send("/v1/claims", body, dryRunSchema))).toBe("CLAIM_TAKEN");
  });
});

describe("a name is kept nowhere", () => {
  test("not in a row, the audit log, an operation or an answer that is kept", async () => {
    const secret = "sk_live_51Hx-the-key-itself";
    const key = { "idempotency-key": "names-1" };
    const body = { namespace: "api-key", value: secret, tenant: "acme" };
    const first = await send("/v1/claims", body, claimAcceptedSchema, key);
    const again = await send("/v1/claims", body, claimAcceptedSchema, key);
    expect(again.op.id).toBe(first.op.id);
    expect(await codeOf(send("/v1/claims", { ...body, tenant: "globex" }, z.any()))).toBe(
      "CLAIM_TAKEN",
    );
    const viewer = await control.client("viewer");
    const asked = viewer.call({
      method: "POST",
      path: "/v1/claims",
      body,
      schema: z.any(),
      timeoutMs: 10_000,
    });
    expect(await codeOf(asked)).toBe("FORBIDDEN");
    const held = await reserve("kept-nowhere.example", "acme");
    await commit(held.reservation);
    await expect(
      send("/v1/claims/release", { reservation: held.reservation }, z.any()),
    ).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    const { rows: tables } = await control.database.read.execute<{ name: string }>(
      sql`select table_name as name from information_schema.tables
           where table_schema = 'cellfleet_control' and table_type = 'BASE TABLE'`,
    );
    expect(tables.length).toBeGreaterThan(10);
    for (const { name } of tables) {
      const { rows } = await control.database.read.execute<{ row: string }>(
        sql`select to_jsonb(t)::text as row from cellfleet_control.${sql.identifier(name)} as t`,
      );
      const text = rows.map(({ row }) => row).join("\n");
      expect(text).not.toContain(secret);
      expect(text).not.toContain("kept-nowhere.example");
      // A reservation's id stands with the claim and in the answer kept for replay, no place else.
      if (name === "audit" || name === "op") expect(text).not.toContain(held.reservation);
      if (name === "audit") expect(text).toContain(first.claim.id);
    }
  });

  test("whoever may only look learns that a name is taken, not whose it is", async () => {
    await claim("whose.example", "globex");
    const viewer = await control.client("viewer");
    const seen = await check("whose.example", "domain", viewer);
    expect(seen).toEqual({ namespace: "domain", taken: true, state: "committed" });
    expect((await check("whose.example")).tenant).toBe("globex");
  });

  test("a list goes on where its page ended, and refuses a forged cursor", async () => {
    const all = (await get("/v1/claims", list(claimSchema))).items;
    const seen: string[] = [];
    let cursor = "";
    for (;;) {
      const page = await get(`/v1/claims?limit=3${cursor}`, list(claimSchema));
      seen.push(...page.items.map(({ id, tenant }) => `${id} ${tenant}`));
      if (page.next === null) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(seen).toEqual(all.map(({ id, tenant }) => `${id} ${tenant}`));
    const forged = Buffer.from("a b").toString("base64url");
    expect(await codeOf(get(`/v1/claims?cursor=${forged}`, list(claimSchema)))).toBe(
      "VALIDATION_FAILED",
    );
  });
});
