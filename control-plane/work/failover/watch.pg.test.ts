/**
 * The leader watches cells: real gates that answer, hang up or hang; what routers and partners say as they
 * say it; and what comes of it under each policy.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { FailoverPolicy } from "../../../contract/failover-api.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog } from "../../../runtime/log.ts";
import type { Loop } from "../../../runtime/loop.ts";
import { systemRandom } from "../../../runtime/random.ts";
import { callRouter, eventually } from "../../control.fixture.ts";
import { cellOneDies, type FailoverApi, startFailoverApi } from "../../failover.fixture.ts";
import { readDesk } from "../../store/failover/witnesses.ts";
import { startWatching, type WatchEvents, type Watched } from "./watch.ts";

const ids = ["cell-01", "cell-02", "cell-03", "cell-04"];
let api: FailoverApi;
let gates: Map<string, Server>;
let beating: NodeJS.Timeout;
/** Cells whose agents call; those whose partners hear from them. */
let calling: Set<string>;
let heard: Set<string>;
/** By so much this process believes to have stood still. */
let stood = 0;
const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + stood };
let watching: Loop | undefined;
let last: Watched | undefined;
const troubles: unknown[] = [];

beforeAll(async () => {
  api = await startFailoverApi();
  await api.run(`update cellfleet_control.leader set term = 1, holder = 'test'`);
});
afterAll(async () => {
  await api?.close();
});

beforeEach(async () => {
  await cellOneDies(api);
  await api.run(`truncate cellfleet_control.failover_desk`);
  await api.run(`update cellfleet_control.cell set health = 'healthy'`);
  gates = new Map();
  for (const id of ids) {
    const gate = createServer((_req, res) => res.writeHead(403).end());
    await new Promise<void>((resolve) => gate.listen(0, "127.0.0.1", resolve));
    gates.set(id, gate);
    const { port } = gate.address() as AddressInfo;
    await api.run(
      `update cellfleet_control.agent set endpoint = 'http://127.0.0.1:${port}', database_reachable = true, app_reachable = true where cell = '${id}'`,
    );
  }
  calling = new Set(ids);
  heard = new Set(ids);
  beating = setInterval(() => void beat(), 200);
});
afterEach(async () => {
  clearInterval(beating);
  await watching?.close();
  watching = undefined;
  for (const gate of gates.values()) shut(gate);
  expect(troubles.splice(0)).toEqual([]);
});

/** As agents of cells and of annexes call. */
async function beat(): Promise<void> {
  const list = (cells: ReadonlySet<string>) =>
    sql.join(
      ["", ...cells].map((cell) => sql`${cell}`),
      sql`, `,
    );
  const { read } = api.control.database;
  await read.execute(sql`update cellfleet_control.agent set seen_at = clock_timestamp()
                          where cell in (${list(calling)})`);
  await read.execute(sql`update cellfleet_control.standby set reported_at = clock_timestamp(),
      heartbeat_age_ms = 300,
      sees = case when origin in (${list(heard)}) then 'alive' else 'silent' end`);
}

function shut(gate: Server | undefined): void {
  gate?.close();
  gate?.closeAllConnections();
}

/** All of it at once, as after SIGKILL. */
function die(cell: string): void {
  shut(gates.get(cell));
  calling.delete(cell);
  heard.delete(cell);
}

function watch(policy: FailoverPolicy, term: () => number | undefined = () => 1): void {
  watching = startWatching({
    ...{ database: api.control.database, clock, random: systemRandom },
    ...{ lead: { term }, policy, onError: (error) => troubles.push(error) },
    log: createLog<WatchEvents>({
      ...{ clock: systemClock, part: "test", level: "error", write: () => {} },
    }),
    onWatched: (watched) => {
      last = watched;
    },
  });
}

const verdictOf = (cell: string) => last?.verdicts.find((one) => one.cell === cell);
const seen = (cell: string, state: string) =>
  eventually(
    async () => verdictOf(cell)?.state,
    (found) => found === state,
  );
const events = async (kind: string) =>
  (await api.run(`select text from cellfleet_control.event where kind = '${kind}'`)).map((row) =>
    String(row["text"]),
  );

test("a cell that dies is taken over by itself, once, with what everybody saw", async () => {
  watch("auto");
  await seen("cell-01", "healthy");
  die("cell-01");
  await eventually(
    () => api.count("failover"),
    (count) => count === 1,
  );
  const [row] = await api.run(`select started_by, plan from cellfleet_control.failover`);
  expect(row).toMatchObject({ started_by: "auto" });
  const { verdicts, ageMs } = await readDesk(api.control.database.read);
  expect(verdicts.map(({ cell, state }) => `${cell} ${state}`)).toEqual([
    ...["cell-01 gone", "cell-02 healthy", "cell-03 healthy", "cell-04 healthy"],
  ]);
  expect(ageMs).toBeLessThan(5000);
  await eventually(
    async () => last?.steps,
    (steps) => steps?.[0] === "confirmed",
  );
  expect(await api.count("failover")).toBe(1);
  expect((await events("detection.gone"))[0]).toContain("cell-01 is gone by 2 of 3 witnesses");
});

test("one witness alone is not believed: the agent still calls, a partner still hears, or only this process is cut off", async () => {
  watch("auto");
  await seen("cell-01", "healthy");
  for (const gate of gates.values()) shut(gate);
  calling.clear();
  await seen("cell-01", "suspect");
  await eventually(
    async () => verdictOf("cell-01")?.witnesses[0]?.says,
    (says) => says === "gone",
  );
  expect(verdictOf("cell-01")?.text).toContain("but partners: cell-02, cell-03 hear from it");
  // What it counted before it stood still is void.
  stood += 5000;
  await eventually(
    async () => verdictOf("cell-01")?.witnesses[0],
    (own) => own?.says === "unknown",
  );
  expect(await api.count("failover")).toBe(0);
});

test("when many cells look gone at once automation stands still, and says so once", async () => {
  await api.run(`insert into cellfleet_control.standby
     (annex, origin, host, provider, bucket_lo, bucket_hi, state, sees, reported_at)
     values ('sb-cell-02-cell-04', 'cell-02', 'cell-04', 'logical', 0, 255, 'ready', 'alive', now())`);
  watch("auto");
  await seen("cell-02", "healthy");
  die("cell-02");
  die("cell-01");
  const told = await eventually(
    () => events("failover.held"),
    (found) => found.some((text) => text.includes("cell-01, cell-02")),
  );
  expect(told.join()).toContain("look gone at once");
  await eventually(
    async () => last?.held.length ?? 0,
    (held) => held > 0,
  );
  expect(await api.count("failover")).toBe(0);
});

test("requests that fail at routers are a witness, a hanging gate a miss, a stopped application is gray; suggest says the command", async () => {
  // Stronger than what the process was started with.
  await api.run(
    `insert into cellfleet_control.failover_desk (one, policy) values (true, 'suggest')`,
  );
  watch("auto");
  await seen("cell-01", "healthy");
  die("cell-01");
  const client = await api.control.client("router", "router-1");
  const seenThere = [
    { cell: "cell-01", requests: 40, failures: 40 },
    { cell: "cell-02", requests: 40, failures: 0 },
  ];
  await callRouter(client, "router-1", { seen: seenThere });
  await eventually(
    async () => verdictOf("cell-01")?.witnesses[1]?.says,
    (says) => says === "gone",
  );
  expect(verdictOf("cell-02")?.witnesses[1]?.text).toBe("0 of 40 requests failed at 1 router");
  gates.get("cell-04")?.removeAllListeners("request");
  await eventually(
    async () => verdictOf("cell-04")?.witnesses[0]?.text,
    (text) => text?.includes("no answer within") === true,
  );
  await api.run(`update cellfleet_control.agent set app_reachable = false where cell = 'cell-03'`);
  await seen("cell-03", "gray");
  expect((await events("detection.gray"))[0]).toContain("a restart mends it");
  const told = await eventually(
    () => events("failover.suggested"),
    (found) => found.length > 0,
  );
  expect(told[0]).toContain("cellctl failover start cell-01");
  expect(await api.count("failover")).toBe(0);
});

test("a cell with manual leases is taken over by nobody who has not seen it powered off: auto says the command", async () => {
  await api.run(`update cellfleet_control.cell
                    set lease_mode = 'manual', lease_mode_number = 1, lease_mode_acked = 1 where id = 'cell-01'`);
  watch("auto");
  await seen("cell-01", "healthy");
  die("cell-01");
  const told = await eventually(
    () => events("failover.suggested"),
    (found) => found.length > 0,
  );
  expect(told[0]).toContain('cellctl failover start cell-01 --proved-dead --reason "…"');
  expect(told[0]).toContain("its leases are manual");
  expect([await api.count("failover"), last?.held]).toEqual([0, []]);
});

test("who does not lead looks at nothing", async () => {
  let term: number | undefined = 1;
  watch("auto", () => term);
  await seen("cell-01", "healthy");
  term = undefined;
  await eventually(
    async () => last?.verdicts.length,
    (length) => length === 0,
  );
  die("cell-01");
  await systemClock.sleep(300);
  expect([last?.verdicts, await api.count("failover")]).toEqual([[], 0]);
});
