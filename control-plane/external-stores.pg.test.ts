/** Stores that are no databases, told of cells of every provider: kept, and what a move's executor is given. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { type Cell, cellSchema } from "../contract/control-api.ts";
import { parseCellId, parseEpoch, parseKeyspaceName, parseOpId } from "../contract/ids.ts";
import { placementKeySchema } from "../contract/placement-key.ts";
import { createHooks } from "../moving/hooks.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { type MovesApi, refusal, resetMoves, startMovesApi } from "./moves.fixture.ts";
import { codeOf } from "./plane.fixture.ts";
import { recordProvided } from "./store/provided.ts";
import { cell } from "./store/schema.ts";
import { buildTask } from "./work/moving/task.ts";

let api: MovesApi;
beforeAll(async () => {
  api = await startMovesApi();
});
afterAll(async () => {
  await api?.close();
});
const databases = {
  main: { database: "env:DATABASE", keyColumn: "tenant_id", mover: "env:MOVER" },
};
beforeEach(async () => {
  await resetMoves(api);
  await api.control.database.read.update(cell).set({ provider: "local", stores: databases });
});

const hook = { url: "http://127.0.0.1:9/cache", timeoutMs: 2500 };
const cache = { kind: "external", hook };
const say = (id: string, stores: unknown) =>
  api.post(`/v1/cells/${id}/stores`, { stores }, z.unknown());
const storesOf = async (id: string): Promise<Cell["stores"]> =>
  (await api.get(`/v1/cells/${id}`, cellSchema)).stores;

const taskOf = () =>
  buildTask(api.control.database.read, async (reference) => `postgres://${reference.slice(4)}`, {
    ...{ id: must(parseOpId("op_hooks000000"), "op"), attempt: 1, reverses: null },
    keyspace: must(parseKeyspaceName("default"), "keyspace"),
    keys: [
      { key: placementKeySchema.parse("default/tenant/acme"), epoch: must(parseEpoch(1), "epoch") },
    ],
    source: must(parseCellId("cell-01"), "cell"),
    target: must(parseCellId("cell-02"), "cell"),
  });

test("a hook that was told is what a move calls; another word replaces it, null forgets it", async () => {
  await say("cell-01", { cache });
  await say("cell-02", { cache: { kind: "external", ignore: true } });
  expect((await storesOf("cell-01"))["main"]).toEqual(databases.main);
  const { external, stores } = await taskOf();
  expect(external).toEqual([
    { name: "cache", source: { hook, ignore: false }, target: { hook: undefined, ignore: true } },
  ]);
  expect(stores.map(({ name }) => name)).toEqual(["main"]);
  const command = { command: "/opt/hooks/cache", timeoutMs: 10_000 };
  await say("cell-01", { cache: { kind: "external", hook: { command: command.command } } });
  const told = await taskOf();
  expect(told.external[0]?.source).toEqual({ hook: command, ignore: false });
  const checks = createHooks({ clock: systemClock, allowCommands: false }).checks(told);
  expect(checks[0]).toMatchObject({ verdict: "refused", cell: "cell-01", store: "cache" });
  expect(checks[0]?.fix).toContain("--allow-hook-commands");
  await say("cell-01", { cache: null });
  await say("cell-02", { cache: null });
  expect(await storesOf("cell-01")).toEqual(databases);
  expect((await taskOf()).external).toEqual([]);
});

test("what cannot be is refused, and nothing of it is kept", async () => {
  const refused = async (stores: unknown) => (await refusal(say("cell-01", stores))).message;
  expect(await codeOf(say("cell-01", { main: { mover: "env:OTHER" } }))).toBe("STATE_CONFLICT");
  expect(await codeOf(say("cell-01", { cache, main: { mover: "env:M" } }))).toBe("STATE_CONFLICT");
  expect(await refused({ main: cache })).toContain("main is a database");
  expect(await refused({ main: null })).toContain("no external store main");
  expect(await refused({ cache: { kind: "external" } })).toContain("ignore: true; one of them");
  expect(await refused({ cache: { ...cache, ignore: true } })).toContain("one of them");
  expect(await refused({ cache: { ...cache, database: "env:A" } })).toContain("has none");
  expect(await refused({ cache: { hook } })).toContain("goes with kind external");
  const secret = { kind: "external", hook: { url: "http://user:hunter2@h/cache" } };
  expect(await refused({ cache: secret })).toContain("no user or password");
  expect(await storesOf("cell-01")).toEqual(databases);
});

test("a provider's word on its databases leaves them; a new cell keeps them, or is refused", async () => {
  await say("cell-01", { cache });
  const { database } = api.control;
  const services = { default: { endpoints: ["http://127.0.0.1:9001"] } };
  const main = { database: "file:/run/other", keyColumn: "tenant_id" };
  const id = must(parseCellId("cell-01"), "cell");
  await recordProvided(database, 0, {
    ...{ id, state: "running", text: "" },
    services,
    stores: { main },
  });
  expect(await storesOf("cell-01")).toMatchObject({ main, cache });
  const create = (stores: unknown) =>
    api.post("/v1/cells", { id: "cell-09", provider: "local", stores }, z.unknown());
  const dropped = await refusal(create({ main, cache }));
  expect([dropped.code, dropped.message]).toEqual([
    "VALIDATION_FAILED",
    expect.stringContaining("the provider local says how the databases of cell-09 are reached"),
  ]);
  await create({ cache });
  expect(await storesOf("cell-09")).toMatchObject({ cache });
});
