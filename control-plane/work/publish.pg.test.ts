/** The routing log reaches routers: in order, whole, at once, and only to who may read it. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  deltaBodySchema,
  snapshotHeadSchema,
  snapshotTailSchema,
} from "../../contract/routing-table.ts";
import { signaturePurposes } from "../../runtime/signing.ts";
import { readSnapshot as readTable } from "../../table/read.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  type ControlFixture,
  callAgent,
  callRouter,
  eventually,
  openCell,
  startControl,
} from "../control.fixture.ts";
import { insertPending } from "../store/placements.ts";
import { changeRouting } from "../store/routing-change.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("publish"));
  await openCell(control.database, "cell-01");
  await openCell(control.database, "cell-02");
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const place = (tenants: readonly string[], cell: string): Promise<number> =>
  control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await insertPending(
      tx,
      tenants.map((value) => ({
        key: `default/tenant/${value}`,
        keyspace: "default",
        kind: "tenant" as const,
        value,
        cell,
        op: "op_0000000001",
        revision,
        epochMin: 1,
      })),
    );
    return revision;
  });

const setState = (key: string, change: ReturnType<typeof sql>): Promise<number> =>
  control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await tx.execute(
      sql`update cellfleet_control.placement set revision = ${revision}, ${change} where key = ${key}`,
    );
    return revision;
  });

async function readSnapshot(token: string): Promise<{ lines: string[]; text: string }> {
  const response = await fetch(`${control.origin}/v1/machine/routing-table`, {
    headers: { authorization: `Bearer ${token}` },
  });
  expect(response.status).toBe(200);
  const text = await response.text();
  return { text, lines: text.trimEnd().split("\n") };
}

test("a router without a table is told to read the snapshot, which is signed", async () => {
  await place(["acme"], "cell-01");
  await setState("default/tenant/acme", sql`state = 'active'`);
  const router = await control.client("router", "router-1");
  const answer = await eventually(
    () => callRouter(router, "router-1"),
    ({ revision }) => revision >= 2,
  );
  expect(answer.answer.kind).toBe("snapshot");
  expect(answer.nonce).toBe("nonce-1");
  const { lines } = await readSnapshot(await control.token("router", "router-1"));
  const head = snapshotHeadSchema.parse(JSON.parse(lines[0] ?? ""));
  const tail = snapshotTailSchema.parse(JSON.parse(lines.at(-1) ?? ""));
  expect(head.placements).toBe(1);
  expect(lines.slice(1, -1).map((line) => JSON.parse(line))).toEqual([
    {
      keyspace: "default",
      kind: "tenant",
      cell: "cell-01",
      epoch: 1,
      state: "active",
      values: ["acme"],
    },
  ]);
  expect(
    control.verifier.verify(
      signaturePurposes.routingTable,
      tail.digest,
      tail.keyId,
      tail.signature,
    ),
  ).toBe(true);
});

test("a waiting router is woken by a change, and told all changes it missed as one", async () => {
  const router = await control.client("router", "router-1");
  const { lines } = await readSnapshot(await control.token("router", "router-1"));
  const { revision } = snapshotHeadSchema.parse(JSON.parse(lines[0] ?? ""));
  const { checksum } = snapshotTailSchema.parse(JSON.parse(lines.at(-1) ?? ""));
  const idle = await callRouter(router, "router-1", { revision, checksum });
  expect(idle.answer.kind).toBe("unchanged");
  const waiting = callRouter(router, "router-1", { revision, checksum, waitMs: 30_000 });
  await place(["globex", "initech"], "cell-02");
  await setState("default/tenant/globex", sql`state = 'active'`);
  await setState("default/tenant/acme", sql`deleted = true`);
  const last = await setState("default/tenant/globex", sql`state = 'hold'`);
  // A change that brings routers nothing (a pending placement) moves the revision all the same.
  expect((await waiting).answer.kind).toBe("delta");
  const caughtUp = await eventually(
    () => callRouter(router, "router-1", { revision, checksum }),
    (answer) => answer.revision >= last,
  );
  if (caughtUp.answer.kind !== "delta") throw new Error(`got ${caughtUp.answer.kind}`);
  const { body, keyId, signature } = caughtUp.answer.delta;
  expect(control.verifier.verify(signaturePurposes.delta, body, keyId, signature)).toBe(true);
  const delta = deltaBodySchema.parse(JSON.parse(body));
  expect(delta).toMatchObject({
    from: revision,
    to: last,
    upserts: [{ cell: "cell-02", epoch: 1, state: "hold", values: ["globex"] }],
    deletes: ["default/tenant/acme"],
  });
  const wrong = await callRouter(router, "router-1", { revision: last, checksum: "0".repeat(16) });
  expect(wrong.answer.kind).toBe("snapshot");
});

test("a change is heard although its notification was lost", async () => {
  const before = control.publisher.revision();
  await control.database.read.execute(
    sql`update cellfleet_control.fleet set revision = revision + 1, config_revision = revision + 1`,
  );
  const after = await eventually(
    async () => control.publisher.revision(),
    (revision) => revision !== before,
  );
  expect(after).toBe(before + 1);
});

test("a router that is further behind than the window takes a snapshot", async () => {
  const router = await control.client("router", "router-1");
  const answer = await callRouter(router, "router-1", { revision: 0, checksum: "1".repeat(16) });
  // The window of this process begins where it read the log first, above revision 0 or at it.
  const oldest = await callRouter(router, "router-1", { revision: 0 });
  expect(oldest.answer.kind).toBe("snapshot");
  expect(["snapshot", "delta"]).toContain(answer.answer.kind);
});

test("the gates of a cell's agents are where routers send requests, and one call each changes nothing", async () => {
  const agent = await control.client("agent", "cell-01");
  const before = (await callAgent(agent, "cell-01")).revision;
  await callAgent(agent, "cell-01", {
    instance: "second",
    endpoint: "http://127.0.0.1:9302",
    primary: false,
  });
  const { revision } = await callAgent(agent, "cell-01");
  expect(revision).toBe(before + 1);
  expect((await callAgent(agent, "cell-01")).revision).toBe(revision);
  const { lines } = await eventually(
    async () => readSnapshot(await control.token("router", "router-1")),
    (snapshot) => snapshot.text.includes("9302"),
  );
  const head = snapshotHeadSchema.parse(JSON.parse(lines[0] ?? ""));
  expect(head.cells.find(({ id }) => id === "cell-01")?.services).toEqual({
    default: { endpoints: ["http://127.0.0.1:9301", "http://127.0.0.1:9302"] },
  });
});

test("a router's token speaks for that router, and no other role reads the table", async () => {
  const router = await control.client("router", "router-1");
  await expect(callRouter(router, "router-2")).rejects.toMatchObject({ code: "FORBIDDEN" });
  const agent = await control.client("agent", "cell-01");
  await expect(callRouter(agent, "cell-01")).rejects.toMatchObject({ code: "FORBIDDEN" });
  await expect(
    callRouter(router, "router-1", { fleet: "fleet-of-somebody-else" }),
  ).rejects.toMatchObject({ code: "STATE_CONFLICT" });
});

test("a client that goes away ends its wait", async () => {
  const router = await control.client("router", "router-1");
  const { lines } = await readSnapshot(await control.token("router", "router-1"));
  const { revision } = snapshotHeadSchema.parse(JSON.parse(lines[0] ?? ""));
  const { checksum } = snapshotTailSchema.parse(JSON.parse(lines.at(-1) ?? ""));
  const stop = new AbortController();
  const waiting = callRouter(
    router,
    "router-1",
    { revision, checksum, waitMs: 30_000 },
    stop.signal,
  );
  await eventually(
    async () => control.publisher.waiting(),
    (count) => count === 1,
  );
  stop.abort();
  await expect(waiting).rejects.toThrow();
  await eventually(
    async () => control.publisher.waiting(),
    (count) => count === 0,
  );
  expect(control.troubles).toEqual([]);
});

test("a large table is read whole while it changes, and a later reader is led on by a delta", async () => {
  const placed = 25_000;
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await tx.execute(sql`
      insert into cellfleet_control.placement (key, keyspace, kind, value, cell, epoch, state, revision, op)
      select 'default/tenant/big-' || n, 'default', 'tenant', 'big-' || n, 'cell-01', 1, 'active',
             ${revision}, 'op_0000000001' from generate_series(1, ${placed}) as n`);
  });
  const token = await control.token("router", "router-1");
  const changing = Promise.all(
    [1, 2, 3].map((n) => setState(`default/tenant/big-${n}`, sql`state = 'unavailable'`)),
  );
  const { text } = await eventually(
    () => readSnapshot(token),
    (snapshot) => snapshot.text.includes('"big-25000"'),
  );
  const last = Math.max(...(await changing));
  const table = await readTable(one(Buffer.from(text)), control.verifier, [1, 2]);
  if ("kind" in table) throw new Error(table.text);
  expect(table.size).toBeGreaterThanOrEqual(placed);
  const router = await control.client("router", "router-1");
  const answer = await eventually(
    () => callRouter(router, "router-1", { revision: table.revision, checksum: table.checksum }),
    ({ revision }) => revision >= last,
  );
  if (answer.answer.kind === "delta") {
    const delta = deltaBodySchema.parse(JSON.parse(answer.answer.delta.body));
    expect(table.apply(delta)).toBeUndefined();
  }
  expect(table.revision).toBe(control.publisher.revision());
  const kept = (await readSnapshot(token)).text;
  await setState("default/tenant/big-4", sql`state = 'hold'`);
  await eventually(
    async () => control.publisher.revision(),
    (revision) => revision > last,
  );
  expect((await readSnapshot(token)).text).toBe(kept);
});

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
