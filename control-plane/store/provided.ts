/**
 * What a provider says about a cell it runs: its services and databases go into the cell's row. What operators
 * said of other stores stays.
 */
import { eq } from "drizzle-orm";
import type { ProvidedCell } from "../../contract/provider-api.ts";
import { canonicalJson } from "./audit-chain.ts";
import type { Database } from "./database.ts";
import { externalStores } from "./fleet-store.ts";
import { holdsTerm } from "./leader.ts";
import { changeRouting } from "./routing-change.ts";
import { cell } from "./schema.ts";

/** Routers learn of it when it is new to them. An absent cell has nothing to say. */
export async function recordProvided(
  database: Database,
  term: number,
  provided: ProvidedCell,
): Promise<void> {
  const { id, services } = provided;
  if (Object.keys(services).length === 0) return;
  await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return;
    const [row] = await tx.select().from(cell).where(eq(cell.id, id));
    if (row === undefined || row.state === "retired") return;
    const known = canonicalJson({ services: row.services, stores: row.stores });
    if (known === canonicalJson({ services, stores: joined(row.stores, provided) })) return;
    await changeRouting(tx, { config: true });
    // Read again under the fleet's lock, under which operators speak of stores.
    const [locked] = await tx.select({ stores: cell.stores }).from(cell).where(eq(cell.id, id));
    const stores = joined(locked?.stores, provided);
    await tx.update(cell).set({ services, stores }).where(eq(cell.id, id));
  });
}

const joined = (known: unknown, { stores }: ProvidedCell): ProvidedCell["stores"] => ({
  ...externalStores(known),
  ...stores,
});
