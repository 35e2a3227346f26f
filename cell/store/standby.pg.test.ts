/** What a cell's database lets happen of standbys: promises, takeovers, lists, stopped buckets, heartbeats. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { slotOf } from "../../contract/placement-key.ts";
import type { Partner } from "../../contract/standby-api.ts";
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
import { installPack } from "./install.ts";
import { setLease } from "./lease.ts";
import {
  beat,
  becomeAnnex,
  endPromise,
  makePromise,
  noteRefused,
  readPartners,
  recordTakeover,
  resumeBuckets,
  stopBuckets,
  takePartners,
} from "./standby.ts";

let server: TestPostgres;
let cells = 0;
let store: CellStore;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  store = await createCellStore(server, `cell_${cells}`);
  return () => store.close();
});

const acme = "default/tenant/acme";
const asked = {
  ...{ systemIdentifier: "7", timeline: 1, boot: "2026-01-01T10:00:00.000001+00:00" },
  ...{ instance: "origin-1", grant: 5, lsn: "0/500" },
};
const promiseOf = (change: Partial<typeof asked> = {}, more: { forMs?: number } = {}) =>
  makePromise(store.agent, {
    ...{ origin: "cell-01", forMs: more.forMs ?? 1000, contested: false },
    identity: { ...asked, ...change },
  });
const insert = (tenant: string) =>
  store.app.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [tenant]);

describe("an annex", () => {
  beforeEach(async () => {
    expect(await becomeAnnex(store.agent, "cell-01")).toBe(true);
    expect(await becomeAnnex(store.agent, "cell-02")).toBe(false);
  });

  test("makes no key active without an open takeover, nor with a promise left", async () => {
    expect(await store.own(acme, "importing")).toBe("applied");
    expect(await refusalOf(store.own(acme, "active"))).toBe("CF011");
    const { number } = await promiseOf();
    await recordTakeover(store.agent, { failover: "op_b", attempt: 1, open: false });
    expect(await refusalOf(store.own(acme, "active"))).toBe("CF011");
    await recordTakeover(store.agent, { failover: "op_b", attempt: 1, open: true });
    expect(await refusalOf(store.own(acme, "active"))).toBe("CF011");
    expect(await endPromise(store.agent, number)).toBe(true);
    expect(await store.own(acme, "active")).toBe("applied");
    // In the middle of a move nothing else is asked.
    expect(await store.own(acme, "fenced")).toBe("applied");
  });

  test("binds by no promise whose origin is proved dead", async () => {
    await promiseOf();
    const order = { failover: "op_b", attempt: 1, open: true };
    await recordTakeover(store.agent, order);
    expect(await recordTakeover(store.agent, { ...order, proved: true })).toBe("recorded");
    expect(await store.own(acme, "active")).toBe("applied");
  });

  test("promises nothing once a takeover is recorded, by whatever attempt", async () => {
    expect(await promiseOf()).toMatchObject({ outcome: "promised", number: 1 });
    const order = { failover: "op_b", attempt: 2, open: false };
    expect(await recordTakeover(store.agent, order)).toBe("recorded");
    expect(await recordTakeover(store.agent, order)).toBe("same");
    for (const older of [
      { ...order, attempt: 1, open: true },
      { ...order, failover: "op_a", attempt: 9, open: true },
      { ...order, attempt: 1, withdrawn: true },
    ]) {
      expect(await recordTakeover(store.agent, older)).toBe("stale");
    }
    expect((await readFacts(store.agent)).standby.annex).toMatchObject({ open: false, attempt: 2 });
    expect((await promiseOf()).outcome).toBe("takeover");
  });

  test("promises again when the takeover was given up before it was open, and not after", async () => {
    const order = { failover: "op_b", attempt: 1, open: false };
    await recordTakeover(store.agent, order);
    const withdrawn = { ...order, attempt: 2, withdrawn: true };
    expect(await recordTakeover(store.agent, withdrawn)).toBe("recorded");
    expect((await promiseOf()).outcome).toBe("promised");
    expect(await recordTakeover(store.agent, { ...order, open: true })).toBe("stale");
    await recordTakeover(store.agent, { failover: "op_c", attempt: 1, open: true });
    expect(await recordTakeover(store.agent, { ...withdrawn, failover: "op_c" })).toBe("stale");
    expect((await promiseOf()).outcome).toBe("takeover");
  });

  test("keeps the longest of what it promised, and ends the last alone", async () => {
    const first = await promiseOf({}, { forMs: 90_000 });
    await promiseOf({}, { forMs: 10 });
    expect((await readFacts(store.agent)).standby.annex?.promisedMs).toBe(90_000);
    expect(await endPromise(store.agent, first.number)).toBe(false);
    expect((await readFacts(store.agent)).standby.annex?.promisedMs).toBe(90_000);
  });

  test.each([
    ["an older grant", { grant: 4 }, "time_travel"],
    ["an older position", { lsn: "0/4FF" }, "time_travel"],
    ["an older timeline", { timeline: 0 }, "time_travel"],
    ["another server", { systemIdentifier: "8" }, "other_database"],
    ["an earlier life", { boot: "2026-01-01T09:00:00.000001+00:00" }, "other_database"],
    ["a later life, by the same agent", { boot: "2026-01-01T11:00:00.000001+00:00" }, "promised"],
  ])("that has promised one database meets %s", async (_, change, outcome) => {
    await promiseOf();
    expect((await promiseOf(change)).outcome).toBe(outcome);
  });

  test("believes heartbeats that have arrived more than who asks", async () => {
    const row = (lsn: number, grant: number) =>
      store.admin.query(
        `insert into cellfleet.heartbeat as h (origin, beat, lease_grant, at) values ('cell-01', $1, $2, now())
         on conflict (origin) do update set beat = $1, lease_grant = $2`,
        [lsn, grant],
      );
    await row(0x500, 6);
    expect((await promiseOf()).outcome).toBe("time_travel");
    await row(0x501, 5);
    expect((await promiseOf()).outcome).toBe("time_travel");
    await row(0x500, 5);
    expect((await promiseOf()).outcome).toBe("promised");
  });

  test("says the latest that it has seen of its origin, from whichever it was", async () => {
    const seen = async () => (await readFacts(store.agent)).standby.annex?.seen;
    const nothing = { systemIdentifier: "", timeline: 0, boot: null, grant: 0, lsn: "0/0" };
    expect(await seen()).toEqual(nothing);
    await promiseOf();
    expect(await seen()).toEqual({
      ...{ systemIdentifier: "7", timeline: 1, boot: asked.boot, grant: 5, lsn: "0/500" },
    });
    await store.admin.query(
      "insert into cellfleet.heartbeat (origin, beat, lease_grant, at) values ('cell-01', $1, 6, now())",
      [0x600],
    );
    expect(await seen()).toMatchObject({ grant: 6, lsn: "0/600" });
  });

  test("waits for the former life of a database that still asks through another agent", async () => {
    await promiseOf();
    const other = { ...asked, boot: "2026-01-01T11:00:00.000001+00:00", instance: "origin-2" };
    const ask = (contested: boolean) =>
      makePromise(store.agent, { origin: "cell-01", forMs: 1000, identity: other, contested });
    expect((await ask(true)).outcome).toBe("contested");
    expect((await ask(false)).outcome).toBe("promised");
    expect((await promiseOf()).outcome).toBe("other_database");
  });

  test("lets a promise and an activation follow each other, never cross", async () => {
    await recordTakeover(store.agent, { failover: "op_b", attempt: 1, open: true });
    const other = await store.connect(storeRoles.agentRole);
    await other.query("begin isolation level repeatable read");
    await other.query("select 1 from cellfleet.facts()");
    await recordTakeover(store.agent, { failover: "op_c", attempt: 1, open: false });
    const change = { key: acme, state: "active", epoch: 1, op: "op", attempt: 1 };
    const late = other.query("select * from cellfleet.apply_ownership($1, null, 5000)", [
      JSON.stringify([change]),
    ]);
    expect(await refusalOf(late)).toBe("40001");
  });
});

describe("an origin", () => {
  const partner = { annex: "sb-a-b", host: "b", lo: 0, hi: 9, token: "t" };
  const partners = [{ ...partner, endpoint: "http://127.0.0.1:1" }] as Partner[];

  test("keeps the newest list of partners, whatever comes later", async () => {
    expect(await readPartners(store.agent)).toBeUndefined();
    const list = { revision: 3, partners, promiseMs: 1000 };
    expect(await takePartners(store.agent, list)).toBe("set");
    expect(await takePartners(store.agent, { ...list, revision: 2, partners: [] })).toBe("stale");
    expect(await takePartners(store.agent, list)).toBe("same");
    expect(await readPartners(store.agent)).toEqual(list);
    expect((await readFacts(store.agent)).standby.listRevision).toBe(3);
    expect(await refusalOf(store.app.query("table cellfleet.partner_list"))).toBe("42501");
  });

  test("presents no position that a crash of its server would take back", async () => {
    await store.admin.query("begin");
    await store.admin.query("create table public.pending as select generate_series(1, 1000) as n");
    const { standby } = await readFacts(store.agent);
    const { rows } = await store.admin.query(
      "select $1::pg_lsn <= pg_current_wal_flush_lsn() as kept",
      [standby.lsn],
    );
    await store.admin.query("rollback");
    expect(rows[0].kept).toBe(true);
  });

  test("beats while it may serve", async () => {
    expect(await beat(store.agent, "cell-01")).toBe(false);
    await store.grantLease();
    expect(await beat(store.agent, "cell-01")).toBe(true);
    const { rows } = await store.admin.query("select lease_grant::int from cellfleet.heartbeat");
    expect(rows).toEqual([{ lease_grant: 1 }]);
  });

  test("gives itself no lease after a refusal, until the control plane grants again", async () => {
    await store.grantLease();
    const own = async () => {
      const { grant, clock, boot } = await readFacts(store.agent);
      return setLease(store.agent, {
        ...{ grant: grant + 1, clock, boot, ttlMs: 60_000, holder: "test", own: true },
      });
    };
    expect(await own()).toBe("set");
    expect((await readFacts(store.agent)).standby).toMatchObject({ controlGrant: 1, leased: true });
    await noteRefused(store.agent);
    expect(await own()).toBe("refused");
    expect(await store.grantLease()).toBe("set");
    expect(await own()).toBe("set");
    expect(await readFacts(store.agent)).toMatchObject({ grant: 4, standby: { controlGrant: 3 } });
  });
});

describe("stopped buckets", () => {
  const bucket = slotOf("acme", 256);
  const globex = ["globex", "initech", "hooli"].find((t) => slotOf(t, 256) !== bucket) ?? "";
  beforeEach(async () => {
    await store.own(acme, "active");
    await store.own(`default/tenant/${globex}`, "active");
    await store.grantLease();
    await insert("acme");
    await insert(globex);
  });
  const stop = () => stopBuckets(store.agent, { annex: "sb-a-b", lo: bucket, hi: bucket });
  const tenants = async () => {
    const { rows } = await store.app.query("select tenant_id from orders order by 1");
    return rows.map(({ tenant_id }) => tenant_id);
  };

  test("are refused and hidden, also after another lease; the others are not", async () => {
    expect(await tenants()).toHaveLength(2);
    await stop();
    expect(await refusalOf(insert("acme"))).toBe("CF004");
    await insert(globex);
    expect(await tenants()).toEqual([globex, globex]);
    expect((await readFacts(store.agent)).lease.live).toBe(true);
    const { grant, clock, boot } = await readFacts(store.agent);
    const own = { grant: grant + 1, clock, boot, ttlMs: 60_000, holder: "test", own: true };
    expect(await setLease(store.agent, own)).toBe("set");
    expect(await refusalOf(insert("acme"))).toBe("CF004");
    // Only by a grant of the control plane.
    expect(await resumeBuckets(store.agent, grant + 1)).toBe(false);
    await store.grantLease();
    expect(await refusalOf(insert("acme"))).toBe("CF004");
    expect(await resumeBuckets(store.agent, grant + 2)).toBe(true);
    await insert("acme");
    expect(await tenants()).toHaveLength(4);
  });

  test.each(isolationLevels)(
    "meet a transaction that runs, in %s, and its commit",
    async (level) => {
      const text = "insert into orders (tenant_id, item, quantity) values ('acme', 'late', 1)";
      const writer = await store.connect();
      await writer.query(`begin isolation level ${level}`);
      await writer.query("select count(*) from orders");
      const committing = await store.connect();
      await committing.query(`begin isolation level ${level}`);
      await committing.query(text);
      await stop();
      expect(await refusalOf(writer.query(text))).toBe("CF004");
      expect(await refusalOf(committing.query("commit"))).toBe("CF004");
    },
  );

  test("outlast a crash of the database", async () => {
    await stop();
    await server.restart("immediate");
    const agent = await openClient(server.url(store.name, storeRoles.agentRole));
    const app = await openClient(server.url(store.name, storeRoles.appRole));
    const { grant, clock, boot, standby } = await readFacts(agent);
    expect(standby).toMatchObject({ stopped: [{ annex: "sb-a-b" }], leased: false });
    await setLease(agent, { grant: grant + 1, clock, boot, ttlMs: 60_000, holder: "test" });
    const late = "insert into orders (tenant_id, item, quantity) values ($1, 'late', 1)";
    expect(await refusalOf(app.query(late, ["acme"]))).toBe("CF004");
    await app.query(late, [globex]);
    await Promise.all([agent.end(), app.end()]);
  });

  test("are those of the contract, in every strategy", async () => {
    const { rows } = await store.admin.query(
      "select t, cellfleet.bucket('default', t) as bucket from unnest($1::text[]) t",
      [["acme", "globex", "ünï", ""]],
    );
    for (const { t, bucket: own } of rows) expect(own).toBe(slotOf(t, 256));
  });
});

test("a database of the pack before this one is brought up while its application writes", async () => {
  await store.own(acme, "active");
  await store.grantLease();
  await store.admin.query(`
    alter table cellfleet.grant_seen drop column refused, drop column control_grant;
    drop table cellfleet.heartbeat, cellfleet.partner_list, cellfleet.stopped, cellfleet.annex_of;
    drop function cellfleet.set_lease(bigint, timestamptz, timestamptz, text, boolean);
    update cellfleet.pack set digest = 'of another pack'`);
  let writes = 0;
  let done = false;
  const writing = (async () => {
    while (!done) {
      await insert("acme");
      writes += 1;
    }
  })();
  await installPack(store.admin, { ...storeRoles, cellId: store.name });
  done = true;
  await writing;
  expect(writes).toBeGreaterThan(0);
  expect(await store.grantLease()).toBe("set");
  await insert("acme");
});
