/** The order rule of the model against cellfleet.apply_ownership itself, over all pairs of commands. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { ownershipStates } from "../contract/cell-protocol.ts";
import { type CellStore, createCellStore } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { takesEffect } from "./ownership-order.ts";

let server: TestPostgres;
let cell: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  cell = await createCellStore(server, "order_rule");
});
afterAll(async () => {
  await cell?.close();
  await server?.stop();
});

const commands = [1, 2].flatMap((epoch) =>
  ["op_a", "op_b"].flatMap((op) =>
    [1, 2].flatMap((attempt) => ownershipStates.map((state) => ({ state, epoch, op, attempt }))),
  ),
);

test("the model and the database obey the same commands", async () => {
  const apply = (changes: readonly unknown[]) =>
    cell.agent.query<{ key: string; outcome: string }>(
      "select key, outcome from cellfleet.apply_ownership($1, null, 5000)",
      [JSON.stringify(changes)],
    );
  for (const [n, there] of commands.entries()) {
    const keyOf = (m: number) => `default/tenant/t${n}-${m}`;
    await apply(commands.map((_, m) => ({ key: keyOf(m), ...there })));
    const { rows } = await apply(commands.map((wanted, m) => ({ key: keyOf(m), ...wanted })));
    const outcomes = new Map(rows.map(({ key, outcome }) => [key, outcome === "applied"]));
    for (const [m, wanted] of commands.entries()) {
      expect({ wanted, there, takes: outcomes.get(keyOf(m)) }).toEqual({
        wanted,
        there,
        takes: takesEffect(wanted, there),
      });
    }
  }
});
