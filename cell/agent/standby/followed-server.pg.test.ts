/** The agent of an annex whose rows are in a server that follows its origin's: it waits elsewhere. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseCellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { type CellStore, createCellStore, storeRoles } from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { type AgentBench, openBench, until } from "../agent.fixture.ts";

let server: TestPostgres;
let followed: CellStore;
let bench: AgentBench;
/** Where the follower is said to be. */
let name = "not-copied-yet";

beforeAll(async () => {
  server = await startTestPostgres();
  followed = await createCellStore(server, "cell-1", { mode: "strict" });
  bench = await openBench(server, "sb-cell-1-cell-2");
});
afterAll(async () => {
  await bench?.close();
  await followed?.close();
  await server?.stop();
});

const last = () => bench.control.calls.findLast((call) => call.annex !== undefined);
const beat = (at: number) =>
  followed.admin.query(
    `insert into cellfleet.heartbeat as h (origin, beat, lease_grant, at) values ('cell-1', $1, 7, now())
     on conflict (origin) do update set beat = excluded.beat, at = excluded.at`,
    [at],
  );

test("its origin's heartbeats are read where the rows are, and no lease is asked for to wait with", async () => {
  const told = { origin: must(parseCellId("cell-1"), "cell id"), token: "token" };
  bench.control.settings.annex = told;
  await beat(0x10);
  const standbyServer = async () => server.url(name, storeRoles.agentRole);
  await bench.start({}, { standbyServer });
  await until("it knows what it is", () => last() !== undefined);
  expect(last()?.annex).toMatchObject({ sees: "unknown", heartbeatAgeMs: null });
  name = followed.name;
  let at = 0x20;
  await until("it sees heartbeats arrive", async () => {
    at += 1;
    await beat(at);
    return last()?.annex?.sees === "alive";
  });
  expect(last()?.annex?.heartbeatAgeMs).toBeLessThan(1500);
  await until("it tells how far the origin had come", () => {
    const { grant, lsn } = last()?.annex?.originSeen ?? {};
    return grant === 7 && /^0\/[2-9A-F]/.test(lsn ?? "");
  });
  bench.control.settings.annex = {
    ...told,
    takeover: { failover: "op_1", attempt: 1, open: true },
  };
  await until("the takeover is recorded", () => last()?.annex?.takeover?.open === true);
  await until("they have stopped", () => last()?.annex?.sees === "silent");
  expect(bench.control.calls.some(({ wantLease }) => wantLease)).toBe(false);
});
