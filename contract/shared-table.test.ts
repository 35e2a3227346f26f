/** A table handed over as a worker thread gets it: the same table, which moves on by itself. */
import { expect, test } from "vitest";
import { deltaOf, tableOf } from "../table/table.fixture.ts";
import { type CellId, defaultKeyspace, type TenantId } from "./ids.ts";
import { deltaBodySchema } from "./routing-table.ts";
import { TableState } from "./table-state.ts";

const acme = "acme" as TenantId;

test("what another thread makes of it is the same table, and both take the next delta", () => {
  const table = tableOf(3, { acme: "a 2", globex: "b 7 hold" }, { a: ["http://a"] });
  const other = TableState.fromShared(structuredClone(table.share()));
  expect(other.checksum).toBe(table.checksum);
  expect([other.revision, other.size, other.epochMax]).toEqual([3, 2, 7]);
  expect(other.cell("a" as CellId)).toEqual(table.cell("a" as CellId));
  const delta = deltaBodySchema.parse(JSON.parse(deltaOf(table, { acme: "b 3" }, ["globex"]).body));
  expect(other.apply(delta)).toBeUndefined();
  expect(other.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "b", epoch: 3 });
  expect(table.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "a", epoch: 2 });
  expect(table.apply(delta)).toBeUndefined();
  expect(table.checksum).toBe(other.checksum);
});
