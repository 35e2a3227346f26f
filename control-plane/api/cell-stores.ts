/**
 * How the databases of a cell are reached: told later than the cell itself, or anew when a login changes.
 * Only references are kept; nothing is opened here, and no router needs to hear of it.
 */
import { eq } from "drizzle-orm";
import { type CellStores, cellStoresSchema } from "../../contract/adoption-api.ts";
import { acceptedSchema, type Cell, dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { storeSchema } from "../../contract/routing-table.ts";
import { onePlan } from "../core/ops/machine.ts";
import { cellStores } from "../store/fleet-store.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable } from "../store/schema.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer, Endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

export const cellStoreEndpoints = (context: ApiContext): readonly Endpoint[] => [
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/stores",
    role: "operator",
    tag: "cells",
    summary: "Say how databases of a cell are reached, by its tools and to move tenants.",
    params: { id: cellIdSchema },
    body: cellStoresSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "cell.stores",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => setStores(context, work, path.id, body),
  }),
];

async function setStores(
  context: ApiContext,
  work: Work,
  id: string,
  { stores: said }: CellStores,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  if (cell.provider !== "none") {
    throw new CellError(
      "STATE_CONFLICT",
      `The provider ${cell.provider} says how the databases of ${id} are reached; nothing was changed.`,
      { nextSteps: [`cellctl cell get ${id}`] },
    );
  }
  if (cell.state === "retired") {
    throw new CellError("STATE_CONFLICT", `${id} is retired; nothing was changed.`);
  }
  const before = await cellStores(tx, id);
  const stores = { ...before, ...merged(before, said) };
  const plan = onePlan(
    "cell.stores",
    Object.entries(said).map(([name, store]) => ({
      action: "set",
      object: `${id}/${name}`,
      text: `set ${Object.keys(store).join(", ")} of the store ${name}`,
    })),
  );
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record({ stores: before }, { stores });
  await tx.update(cellTable).set({ stores }).where(eq(cellTable.id, id));
  return accept(work, {
    id: freshOpId(context, work),
    kind: "cell.stores",
    object: id,
    plan,
    input: { cell: id },
    headline: `the stores of ${id} are recorded`,
    done: true,
    nextSteps: [`cellctl cell get ${id}`],
  });
}

function merged(before: Cell["stores"], said: CellStores["stores"]): Cell["stores"] {
  return Object.fromEntries(
    Object.entries(said).map(([name, store]) => {
      const known = before[name];
      const database = store.database ?? known?.database;
      if (database === undefined) {
        throw new CellError(
          "VALIDATION_FAILED",
          `stores.${name}.database: the cell has no store ${name} yet, so say how it is reached`,
        );
      }
      return [name, storeSchema.parse({ ...known, ...store, database })];
    }),
  );
}
