/** The routing rules of the fleet: read, checked against what is there, changed as one value. */
import { isDeepStrictEqual } from "node:util";
import { eq } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import { globalServicesSchema } from "../../contract/routing-table.ts";
import { serviceRouteSchema } from "../../contract/service-route.ts";
import { tenantSourceSchema } from "../../contract/tenant-source.ts";
import { trafficPolicySchema } from "../../contract/traffic-policy.ts";
import { must } from "../../runtime/assert.ts";
import { onePlan } from "../core/ops/machine.ts";
import { requireNamespace } from "../store/claim-namespaces.ts";
import type { Reader, Tx } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { requireKeyspace } from "../store/keyspaces.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { fleet } from "../store/schema.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

const storedRules = z.object({
  tenantSources: z.array(tenantSourceSchema),
  serviceRoutes: z.array(serviceRouteSchema),
  globalServices: globalServicesSchema,
  policy: trafficPolicySchema,
});
export type Rules = z.output<typeof storedRules>;

export async function readRules(reader: Reader): Promise<Rules> {
  const [row] = await reader
    .select({
      tenantSources: fleet.tenantSources,
      serviceRoutes: fleet.serviceRoutes,
      globalServices: fleet.globalServices,
      policy: fleet.policy,
    })
    .from(fleet);
  return storedRules.parse(must(row, "fleet row"));
}

/** Records the rules after a change, and the operation that tells the routers. */
export async function changeRules(
  context: ApiContext,
  work: Work,
  change: (before: Rules) => Rules,
  text: string,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const before = await readRules(tx);
  const rules = change(before);
  await requireSources(tx, rules);
  requireServices(rules);
  requireRings(rules);
  await requireCells(tx, before, rules);
  const plan = onePlan("routing.update", [
    { action: "replace", object: "routing", text: `${text}: ${changesOf(before, rules)}` },
    { action: "publish", object: "routers", text: "wait until all live routers apply them" },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(before, rules);
  const revision = await changeRouting(tx, { config: true });
  await tx.update(fleet).set(rules).where(eq(fleet.one, true));
  return accept(work, {
    id: freshOpId(context, work),
    kind: "routing.update",
    object: "routing",
    plan,
    input: {},
    revision,
    headline: `${text}: recorded; telling the routers`,
  });
}

/** Which of the lists change, and how many entries they have then. */
function changesOf(before: Rules, after: Rules): string {
  const parts: ReadonlyArray<readonly [string, unknown, unknown, number]> = [
    ["tenant sources", before.tenantSources, after.tenantSources, after.tenantSources.length],
    ["service routes", before.serviceRoutes, after.serviceRoutes, after.serviceRoutes.length],
    ["global services", before.globalServices, after.globalServices, sizeOf(after.globalServices)],
    ["flags", before.policy.flags, after.policy.flags, sizeOf(after.policy.flags)],
    ["rings", before.policy.rings, after.policy.rings, sizeOf(after.policy.rings)],
    [
      "limits of tenants",
      before.policy.tenantLimits,
      after.policy.tenantLimits,
      sizeOf(after.policy.tenantLimits?.tenants),
    ],
  ];
  const changed = parts
    .filter(([, was, is]) => !isDeepStrictEqual(was, is))
    .map(([name, , , size]) => `${name} change, ${size} then`);
  return changed.length === 0 ? "nothing changes" : changed.join("; ");
}

const sizeOf = (value: object = {}): number => Object.keys(value).length;

/** Keyspaces exist, and names are of kinds that routers are told of. */
async function requireSources(tx: Tx, { tenantSources }: Rules): Promise<void> {
  for (const { keyspace, alias } of tenantSources) {
    if (keyspace !== undefined) await requireKeyspace(tx, keyspace);
    if (alias === undefined) continue;
    const { routed } = await requireNamespace(tx, alias);
    if (routed) continue;
    throw new CellError(
      "VALIDATION_FAILED",
      `tenantSources: names of ${alias} are not told to routers, so no request can name a tenant by one.`,
      {
        details: { alias },
        nextSteps: [
          "cellctl claim namespaces",
          "cellctl claim namespaces add NAME --cardinality one --routed",
        ],
      },
    );
  }
}

/** What a route of class `global` speaks of is there. */
function requireServices({ serviceRoutes, globalServices }: Rules): void {
  const missing = serviceRoutes
    .filter((route) => route.class === "global" && !Object.hasOwn(globalServices, route.service))
    .map(({ service }) => service);
  if (missing.length === 0) return;
  throw new CellError(
    "VALIDATION_FAILED",
    `serviceRoutes: the class global needs ${[...new Set(missing)].join(", ")} among globalServices.`,
    {
      details: { missing, globalServices: Object.keys(globalServices) },
      nextSteps: ['add to the file: "globalServices": {"NAME": {"endpoints": ["http://…"]}}'],
    },
  );
}

/** A flag is on in rings that are there: a ring that is forgotten would switch it off in silence. */
function requireRings({ policy: { flags = {}, rings = {} } }: Rules): void {
  for (const [name, flag] of Object.entries(flags)) {
    const missing = (flag.rings ?? []).find((ring) => !Object.hasOwn(rings, ring));
    if (missing === undefined) continue;
    throw new CellError(
      "RING_UNKNOWN",
      `The flag ${name} names the ring ${missing}, which is not there.`,
      {
        details: { flag: name, ring: missing },
        nextSteps: [
          "cellctl ring ls",
          `cellctl ring set ${missing} CELL`,
          `cellctl flag set ${name} …`,
        ],
      },
    );
  }
}

const cellsOf = ({ serviceRoutes, policy }: Rules): readonly CellId[] => [
  ...serviceRoutes.flatMap(({ cell }) => cell ?? []),
  ...Object.values(policy.rings ?? {}).flat(),
  ...Object.values(policy.flags ?? {}).flatMap(({ cells = [] }) => cells),
];

/** Cells that the rules newly name are there; one that has gone since stops no other change. */
async function requireCells(tx: Tx, before: Rules, after: Rules): Promise<void> {
  const old = new Set(cellsOf(before));
  const named = cellsOf(after).filter((id) => !old.has(id));
  if (named.length === 0) return;
  const known = new Set((await readCells(tx)).map(({ id }) => id));
  const missing = [...new Set(named)].filter((id) => !known.has(id));
  if (missing.length === 0) return;
  throw new CellError(
    "CELL_UNKNOWN",
    `The rules name cells that are not there: ${missing.join(", ")}.`,
    {
      details: { missing },
      nextSteps: ["cellctl cell ls"],
    },
  );
}
