/**
 * A new cell's row, `provisioning`, and the operation that builds it. A cell whose creation failed is
 * gone on with under the same id; an id that was ever retired is spent.
 */
import { eq } from "drizzle-orm";
import type { z } from "zod";
import { annexPrefix, isAnnexId } from "../../contract/annex.ts";
import type { Cell, createCellSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { defaultService } from "../../contract/service-route.ts";
import { planCellCreate } from "../core/ops/cell-create.ts";
import { adoptionGoesOn, checkAdoption } from "../core/safety.ts";
import { cellStores, externalStores, readCells } from "../store/fleet-store.ts";
import { bornWith, setLeaseMode } from "../store/lease-mode.ts";
import { openOpOn } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable } from "../store/schema.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

type Wanted = z.output<typeof createCellSchema>;

export async function createCell(context: ApiContext, work: Work, wanted: Wanted): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  if (isAnnexId(wanted.id)) {
    const text = `Names that begin with ${annexPrefix} are those of standbys.`;
    throw new CellError("VALIDATION_FAILED", text);
  }
  requireProvider(context, wanted);
  requireStores(wanted);
  const cells = await readCells(tx);
  const existing = cells.find(({ id }) => id === wanted.id);
  const adopting = cells[0]?.adopting ?? null;
  const refusal = checkAdoption({ id: wanted.id, adopting });
  if (refusal !== undefined) throw adoptionGoesOn({ adopting }, refusal);
  if (existing !== undefined) await requireResumable(work, existing.id, existing.state);
  const plan = planCellCreate(wanted.id, wanted.provider);
  if (work.dryRun) return dryRunAnswer(plan);
  // Said while an earlier attempt was on its way: kept, as nobody would say it again.
  const known = existing === undefined ? {} : externalStores(await cellStores(tx, existing.id));
  const columns = cellColumns(wanted, known);
  const mode = wanted.leaseMode ?? context.settings.leaseMode ?? "timed";
  await work.record(existing ?? null, { ...columns, id: wanted.id, leaseMode: mode });
  if (existing === undefined) {
    await tx.insert(cellTable).values({
      ...{ ...columns, ...bornWith(mode), id: wanted.id },
      ...{ state: "provisioning", goal: "active" },
    });
  } else {
    await tx
      .update(cellTable)
      .set({ ...columns, goal: "active" })
      .where(eq(cellTable.id, wanted.id));
    await setLeaseMode(tx, wanted.id, mode);
  }
  return accept(work, {
    id: freshOpId(context, work),
    kind: "cell.create",
    object: wanted.id,
    plan,
    input: { cell: wanted.id, provider: wanted.provider },
    headline: `${wanted.id} is recorded as provisioning`,
    nextSteps: wanted.provider === "none" ? agentSteps(wanted.id) : [],
  });
}

/** Better said at once than by an operation that asks nobody for minutes. */
function requireProvider(context: ApiContext, { id, provider }: Wanted): void {
  const { providers } = context.settings;
  if (provider === "none" || providers === undefined || providers.includes(provider)) return;
  throw new CellError(
    "STATE_CONFLICT",
    `This control plane has no provider ${provider}: it was started without --provider-url.`,
    { nextSteps: [`cellctl cell create ${id} --provider none   (run its processes by hand)`] },
  );
}

/** What would not be kept is refused: a provider says itself how its databases are reached. */
function requireStores({ id, provider, stores = {} }: Wanted): void {
  for (const [name, store] of Object.entries(stores)) {
    if (store.kind === "external") continue;
    if (provider !== "none") {
      throw new CellError(
        "VALIDATION_FAILED",
        `stores.${name}: the provider ${provider} says how the databases of ${id} are reached; leave it out, or say kind external`,
      );
    }
    if (store.database === undefined) {
      throw new CellError("VALIDATION_FAILED", `stores.${name}.database: say how it is reached`);
    }
  }
}

const agentSteps = (id: string): readonly string[] => [
  `cellctl token create ${id} --role agent --subject ${id}`,
  `cellctl agent --cell ${id} --upstream URL --database-url REF --token REF`,
];

async function requireResumable(work: Work, id: string, state: string): Promise<void> {
  const open = await openOpOn(work.tx, id, "cell.");
  if (open !== undefined) {
    throw new CellError("CELL_EXISTS", `${id} is being worked on (${open.id}): ${open.headline}`, {
      nextSteps: [`cellctl op watch ${open.id}`],
    });
  }
  if (state === "provisioning") return;
  const spent = state === "retired" ? "; its id is spent" : "";
  throw new CellError("CELL_EXISTS", `The cell ${id} exists and is ${state}${spent}.`, {
    nextSteps: [`cellctl cell get ${id}`],
  });
}

function cellColumns(wanted: Wanted, known: Cell["stores"]) {
  const { capacity, endpoints } = wanted;
  const shorthand = endpoints === undefined ? {} : { [defaultService]: { endpoints } };
  return {
    region: wanted.region,
    // A cell of which nobody says otherwise fails alone.
    failureDomain: wanted.failureDomain ?? wanted.id,
    tiers: wanted.tiers,
    dedicated: wanted.dedicated,
    provider: wanted.provider,
    capacityTenants: capacity.tenants,
    capacityBytes: capacity.bytes,
    capacityRps: capacity.rps,
    maxTenantShare: capacity.maxTenantShare,
    services: { ...shorthand, ...wanted.services },
    stores: { ...known, ...wanted.stores },
  };
}
