/**
 * The lease inside the database: bound to the running postmaster, to a grant that was never seen
 * before, to the database's own clock; and looked at once more when a transaction commits.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  isolationLevels,
  openClient,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "./facts.ts";
import { expireLease, setLease } from "./lease.ts";

const insertAcme = "insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)";
const ttlMs = 1_200_000;
const holder = "agent-1";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

/** What tests put in place of `cellfleet.clock()`: the real clock, `shift` later. */
async function shiftClock(admin: pg.Client, shift: string): Promise<void> {
  await admin.query(`create or replace function cellfleet.clock() returns timestamptz
    language sql volatile parallel safe
    begin atomic select pg_catalog.clock_timestamp() + interval '${shift}'; end`);
}

describe("in one life of the server", () => {
  let store: CellStore;
  beforeAll(async () => {
    store = await createCellStore(server, "leased");
    await store.own("default/tenant/acme", "active");
  });
  afterAll(() => store.close());
  beforeEach(async () => {
    await shiftClock(store.admin, "0");
    await store.grantLease();
  });

  test("facts tell a control plane who this database is", async () => {
    const facts = await readFacts(store.agent);
    expect(facts).toMatchObject({ cell: "leased", timeline: 1, epochMax: 1, appliedRevision: 0 });
    expect(facts.systemIdentifier).toMatch(/^\d{19}$/);
    expect(facts.lease.live).toBe(true);
    expect(facts.lease.grant).toBe(facts.grant);
    expect(facts.lease.remainingMs).toBeGreaterThan(ttlMs - 60_000);
    expect(facts.lease.remainingMs).toBeLessThanOrEqual(ttlMs);
  });

  test("a grant counts once: an older one, and the same one later, change nothing", async () => {
    const { grant, clock, boot } = await readFacts(store.agent);
    const lease = { clock, boot, holder, ttlMs };
    expect(await setLease(store.agent, { ...lease, grant: grant - 1 })).toBe("stale-grant");
    expect(await setLease(store.agent, { ...lease, grant, ttlMs: ttlMs * 9 })).toBe("same");
    const after = await readFacts(store.agent);
    expect(after.lease.remainingMs).toBeLessThanOrEqual(ttlMs);
    // Nearer is possible: an agent that found its clock stepped says so.
    expect(await setLease(store.agent, { ...lease, grant, ttlMs: 60_000 })).toBe("same");
    expect((await readFacts(store.agent)).lease.remainingMs).toBeLessThanOrEqual(60_000);
  });

  test("an ended lease is not revived by its own grant", async () => {
    const { grant, clock, boot } = await readFacts(store.agent);
    expect(await expireLease(store.agent, grant)).toBe(true);
    expect(await refusalOf(store.app.query(insertAcme))).toBe("CF004");
    expect(await setLease(store.agent, { grant, clock, boot, holder, ttlMs })).toBe("same");
    expect(await refusalOf(store.app.query(insertAcme))).toBe("CF004");
    expect(await setLease(store.agent, { grant: grant + 1, clock, boot, holder, ttlMs })).toBe(
      "set",
    );
    await store.app.query(insertAcme);
  });

  test("one agent's expiry does not end what another has renewed", async () => {
    const { grant } = await readFacts(store.agent);
    await store.grantLease();
    expect(await expireLease(store.agent, grant)).toBe(false);
    await store.app.query(insertAcme);
    expect((await readFacts(store.agent)).lease.live).toBe(true);
  });

  test("a grant for another postmaster is refused and not remembered", async () => {
    const { grant, clock } = await readFacts(store.agent);
    const boot = "2020-01-01T00:00:00Z";
    expect(await setLease(store.agent, { grant: grant + 1, clock, boot, holder, ttlMs })).toBe(
      "other-boot",
    );
    expect((await readFacts(store.agent)).grant).toBe(grant);
  });

  test("when the clock passes its end, writes and reads are refused", async () => {
    await shiftClock(store.admin, "21 minutes");
    expect(await refusalOf(store.app.query(insertAcme))).toBe("CF004");
    expect(await refusalOf(store.app.query("select * from orders"))).toBe("CF004");
    expect((await readFacts(store.agent)).lease).toMatchObject({ live: false, remainingMs: 0 });
    await shiftClock(store.admin, "19 minutes");
    await store.app.query(insertAcme);
  });

  test("enter() without a lease is refused, also in front of a read", async () => {
    const { grant } = await readFacts(store.agent);
    await expireLease(store.agent, grant);
    expect(
      await refusalOf(store.app.query("select cellfleet.enter('default/tenant/acme', 1)")),
    ).toBe("CF004");
  });

  const countOrders = async () => {
    const { rows } = await store.admin.query("select count(*)::int as n from orders");
    return Number(rows[0].n);
  };

  describe.each(isolationLevels)("%s", (isolation) => {
    test("a commit after the end of the lease is refused", async () => {
      const before = await countOrders();
      await store.app.query(`begin isolation level ${isolation}`);
      await store.app.query(insertAcme);
      await shiftClock(store.admin, "21 minutes");
      // A session hears that a function was replaced with its next statement, not at COMMIT.
      await store.app.query("select from pg_class limit 1");
      expect(await refusalOf(store.app.query("commit"))).toBe("CF004");
      expect(await countOrders()).toBe(before);
    });

    test.each(["update orders set quantity = 5", "delete from orders"])(
      "so is the commit of: %s",
      async (text) => {
        await store.app.query(insertAcme);
        await store.app.query(`begin isolation level ${isolation}`);
        await store.app.query(text);
        const { grant } = await readFacts(store.agent);
        await expireLease(store.agent, grant);
        expect(await refusalOf(store.app.query("commit"))).toBe("CF004");
      },
    );

    test("a running transaction sees the end at once, and a renewal too", async () => {
      await store.app.query(`begin isolation level ${isolation}`);
      await store.app.query("select count(*) from orders");
      await shiftClock(store.admin, "19 minutes");
      await store.grantLease();
      await shiftClock(store.admin, "38 minutes");
      await store.app.query(insertAcme);
      const { grant } = await readFacts(store.agent);
      await expireLease(store.agent, grant);
      expect(await refusalOf(store.app.query(insertAcme))).toBe("CF004");
      await store.app.query("rollback");
    });
  });
});

describe.each(["fast", "immediate", "kill"] as const)("after a restart (%s)", (mode) => {
  test("the database is born fenced until a new grant is there", async () => {
    const name = `reborn_${mode}`;
    const store = await createCellStore(server, name);
    await store.own("default/tenant/acme", "active", 7);
    await store.grantLease();
    await store.app.query(insertAcme);
    const before = await readFacts(store.agent);
    await server.restart(mode);
    const agent = await openClient(server.url(name, storeRoles.agentRole));
    const app = await openClient(server.url(name, storeRoles.appRole));
    try {
      expect(await refusalOf(app.query(insertAcme))).toBe("CF004");
      expect(await refusalOf(app.query("select * from orders"))).toBe("CF004");
      const facts = await readFacts(agent);
      expect(facts.lease.live).toBe(false);
      expect(facts.boot).not.toBe(before.boot);
      // What must survive did.
      expect(facts).toMatchObject({ grant: before.grant, epochMax: 7 });
      const { grant, clock, boot } = facts;
      expect(await setLease(agent, { grant, clock, boot, holder, ttlMs })).toBe("stale-grant");
      expect(
        await setLease(agent, { grant: grant + 1, clock, boot: before.boot, holder, ttlMs }),
      ).toBe("other-boot");
      expect(await refusalOf(app.query(insertAcme))).toBe("CF004");
      expect(await setLease(agent, { grant: grant + 1, clock, boot, holder, ttlMs })).toBe("set");
      await app.query(insertAcme);
      expect((await app.query("select * from orders")).rowCount).toBe(2);
    } finally {
      await Promise.all([agent.end(), app.end(), store.close()]);
    }
  });
});
