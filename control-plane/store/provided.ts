/** What a provider says about a cell it runs: its services and stores go into the cell's row. */
import { eq } from "drizzle-orm";
import type { ProvidedCell } from "../../contract/provider-api.ts";
import { canonicalJson } from "./audit-chain.ts";
import type { Database } from "./database.ts";
import { holdsTerm } from "./leader.ts";
import { changeRouting } from "./routing-change.ts";
import { cell } from "./schema.ts";

/** Routers learn of it when it is new to them. An absent cell has nothing to say. */
export async function recordProvided(
  database: Database,
  term: number,
  provided: ProvidedCell,
): Promise<void> {
  const { id, services, stores } = provided;
  if (Object.keys(services).length === 0) return;
  await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return;
    const [row] = await tx.select().from(cell).where(eq(cell.id, id));
    if (row === undefined || row.state === "retired") return;
    const known = canonicalJson({ services: row.services, stores: row.stores });
    if (known === canonicalJson({ services, stores })) return;
    await changeRouting(tx, { config: true });
    await tx.update(cell).set({ services, stores }).where(eq(cell.id, id));
  });
}
