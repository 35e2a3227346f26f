/**
 * How the databases of a cell are reached: told later than the cell itself, or anew when a login changes; and
 * what is told of a move for what they do not hold, of cells of every provider. Only references are kept;
 * nothing is opened here, and no router needs to hear of it.
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
    summary: "Say how a cell's databases are reached, and how data of its other stores moves.",
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
  const isExternal = (store: CellStores["stores"][string]) =>
    store === null || store.kind === "external";
  if (cell.provider !== "none" && !Object.values(said).every(isExternal)) {
    throw new CellError(
      "STATE_CONFLICT",
      `The provider ${cell.provider} says how the databases of ${id} are reached; nothing was changed.`,
      {
        nextSteps: [
          `cellctl cell get ${id}`,
          `cellctl cell set ${id} --hook NAME=URL   (a store that PostgreSQL does not hold)`,
        ],
      },
    );
  }
  if (cell.state === "retired") {
    throw new CellError("STATE_CONFLICT", `${id} is retired; nothing was changed.`);
  }
  const before = await cellStores(tx, id);
  const stores = merged(id, before, said);
  const plan = onePlan(
    "cell.stores",
    Object.entries(said).map(([name, store]) => ({
      action: store === null ? "forget" : "set",
      object: `${id}/${name}`,
      text:
        store === null
          ? `forget the external store ${name}: moves ask nothing for it any more`
          : `set ${Object.keys(store).join(", ")} of the store ${name}`,
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

/** All stores of the cell as they are then. Throws VALIDATION_FAILED. */
function merged(id: string, before: Cell["stores"], said: CellStores["stores"]): Cell["stores"] {
  const stores = new Map(Object.entries(before));
  for (const [name, store] of Object.entries(said)) {
    const known = before[name];
    if (store === null) {
      if (known?.kind !== "external") {
        throw new CellError(
          "VALIDATION_FAILED",
          `stores.${name}: ${id} has no external store ${name} to forget`,
          { nextSteps: [`cellctl cell get ${id}`] },
        );
      }
      stores.delete(name);
    } else {
      stores.set(
        name,
        store.kind === "external" ? external(name, known, store) : database(name, known, store),
      );
    }
  }
  return Object.fromEntries(stores);
}

type Known = Cell["stores"][string] | undefined;
type Said = NonNullable<CellStores["stores"][string]>;

function external(name: string, known: Known, store: Said): Cell["stores"][string] {
  if (known !== undefined && known.kind !== "external") {
    throw new CellError(
      "VALIDATION_FAILED",
      `stores.${name}.kind: ${name} is a database of this cell, which moves without a hook`,
    );
  }
  return storeSchema.parse(store);
}

function database(name: string, known: Known, store: Said): Cell["stores"][string] {
  if (known?.kind === "external") {
    throw new CellError(
      "VALIDATION_FAILED",
      `stores.${name}.kind: ${name} is an external store of this cell; forget it before a database takes its name`,
    );
  }
  const reached = store.database ?? known?.database;
  if (reached === undefined) {
    throw new CellError(
      "VALIDATION_FAILED",
      `stores.${name}.database: the cell has no store ${name} yet, so say how it is reached`,
    );
  }
  return storeSchema.parse({ ...known, ...store, database: reached });
}
