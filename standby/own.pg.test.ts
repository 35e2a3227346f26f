/** Keys that an annex's databases are told of sooner than by their agent: never without an open takeover. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { recordTakeover } from "../cell/store/standby.ts";
import { epochSchema } from "../contract/ids.ts";
import { placementKeySchema } from "../contract/placement-key.ts";
import { must } from "../runtime/assert.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

const own = must(provider.own, "a way to tell keys");
const open = must(provider.open, "a way to open takeovers");
let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

const change = (tenant: string, epoch: number, attempt = 1) => ({
  ...{ key: placementKeySchema.parse(`default/tenant/${tenant}`), state: "active" as const },
  ...{ epoch: epochSchema.parse(epoch), op: "op_failover", attempt },
});

test("an annex owns what it is told only once its takeover is open, and claims nothing that it knows better", async () => {
  const annex = await cells.annex("sb-own");
  const pair = cells.pair(annex);
  await annex.admin.query("select cellfleet.become_annex('cell-a', '')");
  const order = { failover: "op_failover", attempt: 1 };
  // Reached ahead of that: nothing is said, and nothing is refused.
  expect(await own(pair, [])).toEqual([]);
  await expect(own(pair, [change("acme", 2)])).rejects.toMatchObject({ code: "CF011" });
  await recordTakeover(annex.admin, { ...order, open: false });
  await expect(own(pair, [change("acme", 2)])).rejects.toMatchObject({ code: "CF011" });
  expect(await open(pair, { ...order, open: true })).toBe(true);
  expect(await own(pair, [change("acme", 2), change("globex", 5)])).toEqual([
    "default/tenant/acme",
    "default/tenant/globex",
  ]);
  // Its agent says the same afterwards, and an older executor something else: neither changes anything.
  expect(await own(pair, [change("acme", 2)])).toEqual(["default/tenant/acme"]);
  await recordTakeover(annex.admin, { ...order, attempt: 2, open: true });
  expect(await own(pair, [change("acme", 3, 2)])).toEqual(["default/tenant/acme"]);
  expect(await own(pair, [change("acme", 2)])).toEqual([]);
  // An executor that was replaced opens nothing.
  expect(await open(pair, { ...order, open: true })).toBe(false);
  const { rows } = await annex.admin.query(
    "select key, state, epoch::int from cellfleet.ownership order by key",
  );
  expect(rows).toEqual([
    { key: "default/tenant/acme", state: "active", epoch: 3 },
    { key: "default/tenant/globex", state: "active", epoch: 5 },
  ]);
});
