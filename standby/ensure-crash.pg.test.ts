/** Whoever makes, cuts or drops a stream may die between any two statements: who comes next finishes it. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CuttingProxy, startCuttingProxy } from "../moving/cutting-proxy.fixture.ts";
import { never } from "../moving/streams.fixture.ts";
import { systemClock } from "../runtime/clock.ts";
import type { StandbyPair } from "./ports.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
/** Before the origin's server, and before the annex's. */
let proxies: readonly [CuttingProxy, CuttingProxy];
beforeAll(async () => {
  cells = await startStandbyCells();
  proxies = [
    await startCuttingProxy(cells.serverOf(cells.a).port),
    await startCuttingProxy(cells.serverOf(cells.b).port),
  ];
});
afterAll(async () => {
  await provider.close();
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await cells.close();
});

/** For who works on the stream. The annex's own workers go past them: libpq reads the port that is named last. */
const throughProxies = (pair: StandbyPair): StandbyPair => ({
  ...pair,
  stores: pair.stores.map(({ name, origin, annex }) => ({
    name,
    origin: {
      ...origin,
      url: `${proxies[0].through(origin.url)}?port=${cells.serverOf(cells.a).port}`,
    },
    annex: { ...annex, url: proxies[1].through(annex.url) },
  })),
});

const cutAfter = (sends: number) => {
  for (const proxy of proxies) proxy.cutAfter(sends);
};

/** With 1 every place is tried; where the cuts fall differs from run to run anyway. */
const sendsBetweenCuts = 3;

/** Begun again and again, each time cut a little later, until it comes through whole. */
async function cutEverywhere(step: () => Promise<unknown>): Promise<number> {
  for (let sends = 0; ; sends += sendsBetweenCuts) {
    cutAfter(sends);
    try {
      await step();
      if (!proxies.some((proxy) => proxy.hasCut())) return sends;
    } catch (error) {
      expect(`${JSON.stringify(error)} ${error}`).toContain("CELL_DATABASE_UNREACHABLE");
    } finally {
      cutAfter(Number.POSITIVE_INFINITY);
    }
  }
}

async function leftovers(): Promise<string[]> {
  const found: string[] = [];
  for (const { admin } of [cells.a, cells.b]) {
    const { rows } = await admin.query<{ name: string }>(
      `select slot_name::text as name from pg_replication_slots
       union all select pubname from pg_publication where pubname ~ '^sb_'
       union all select subname from pg_subscription`,
    );
    found.push(...rows.map(({ name }) => name));
  }
  return found;
}

test("a stream is made, extended, cut and dropped by callers that die at every step", async () => {
  const annex = await cells.annex("sb-cell-a-cell-b");
  const real = cells.pair(annex);
  const pair = throughProxies(real);
  await cells.tenant("acme");
  expect(await cutEverywhere(() => provider.ensure(pair, never))).toBeGreaterThan(3);
  await cells.inStep(pair);
  await cells.write(cells.a.app, "acme");
  await cells.arrived(annex);
  expect(await cells.rowsOf(annex, "acme")).toEqual(await cells.rowsOf(cells.a, "acme"));
  await cells.a.admin.query(
    "alter publication sb_sb_cell_a_cell_b_main drop table only public.notes, only public.currencies",
  );
  await cells.write(cells.a.app, "acme");
  await cutEverywhere(() => provider.refresh(pair));
  await cells.inStep(pair);
  await cells.arrived(annex);
  const rows = await cells.rowsOf(annex, "acme");
  expect(rows).toEqual(await cells.rowsOf(cells.a, "acme"));

  let severed: unknown;
  await cutEverywhere(async () => {
    severed = await provider.sever(pair);
  });
  await cells.write(cells.a.app, "acme");
  expect(await provider.sever(pair)).toEqual(severed);
  expect(await provider.status(pair)).toMatchObject({ phase: "severed" });
  expect(await cells.rowsOf(annex, "acme")).toEqual(rows);
  await cutEverywhere(() => provider.activate(pair));
  await cutEverywhere(() => provider.drop(pair, "there"));
  expect(await leftovers()).toEqual([]);
});

test("cut while it is being made, nothing of it is left that could apply a row, whoever was first", async () => {
  const annex = await cells.annex("sb-race");
  const pair = cells.pair(annex);
  await cells.tenant("race");
  for (let round = 0; round < 8; round += 1) {
    const making = provider.ensure(pair, never).catch((error: unknown) => error);
    await systemClock.sleep(round * 8);
    await provider.sever(pair);
    const outcome = await making;
    if (outcome !== undefined) {
      expect(outcome).toMatchObject({
        code: expect.stringMatching(/^(STATE_CONFLICT|CELL_DATABASE_UNREACHABLE|DATABASE_UNFIT)$/),
      });
    }
    expect(await provider.status(pair)).toMatchObject({ phase: "severed" });
    const left = "select subname from pg_subscription where subname ~ 'race'";
    expect((await annex.admin.query(left)).rows).toEqual([]);
    await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    await provider.drop(pair, "there");
    await annex.admin.query("delete from cellfleet.standby_stream");
  }
  expect(await leftovers()).toEqual([]);
});
