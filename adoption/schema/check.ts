/**
 * `schema check`: what keeps a schema from keeping tenants apart, each finding with the statement
 * that mends it, and with who does that: `schema install`, or a person.
 */
import { readStoreCatalog } from "../../cell/store/catalog.ts";
import { type Finding, type FindingCode, findGaps } from "../../cell/store/coverage.ts";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { requireAppRole } from "./app-role.ts";
import { ownFindings } from "./own-findings.ts";
import { planInstall } from "./plan-install.ts";
import type { Plan, StepKind } from "./step.ts";
import { type TenantTable, tenantTables } from "./tenant-tables.ts";

export type SchemaFinding = {
  readonly id: string;
  readonly code: FindingCode;
  /** `risk`: harmless in one cell; somebody who knows the application decides. */
  readonly severity: Finding["severity"];
  readonly object: string;
  readonly text: string;
  readonly mend: string;
  readonly mendedBy: "install" | "you";
};

export type SchemaVerdict = {
  readonly items: readonly SchemaFinding[];
  /** False: nothing of ours is there yet, so that what `install` will do is not a fault. */
  readonly installed: boolean;
  readonly tenantTables: number;
};

/** What `install` does about a finding. Others are a person's. */
const mendingSteps: Partial<Record<FindingCode, readonly StepKind[]>> = {
  KEY_COLUMN_MISSING: ["add-key-column"],
  KEY_COLUMN_NULLABLE: ["key-not-null"],
  KEY_NOT_IN_IDENTITY: ["replica-identity"],
  GUARD_MISSING: ["protect"],
  GUARD_DIFFERENT: ["protect"],
  VISIBILITY_MISSING: ["protect"],
  IDS_NOT_LEASED: ["protect"],
};
/** Of the application's role: judged only when it is named. */
const aboutRole = ({ code }: Finding): boolean =>
  code === "ROLE_TOO_STRONG" || code === "TRUNCATE_GRANTED";

/**
 * `appRole`: as the application logs in; undefined leaves out what is said of it. Throws
 * REQUEST_INVALID where there is no such role.
 */
export async function checkSchema(
  client: Queryable,
  manifest: Manifest,
  appRole: string | undefined,
): Promise<SchemaVerdict> {
  const app = await readAppCatalog(client);
  const role = appRole === undefined ? app.user : await requireAppRole(client, manifest, appRole);
  const found = findGaps(manifest, await readStoreCatalog(client, role), role).filter(
    (gap) => appRole !== undefined || !aboutRole(gap),
  );
  const tables = tenantTables(app, manifest);
  // Coverage names a view by its plain name where that is enough, and judges it by the role's rights.
  const seen = new Set(
    found.filter(({ code }) => code === "VIEW_UNFENCED").map(({ object }) => object),
  );
  const gaps = [...found, ...ownFindings(app, tables).filter(({ object }) => !seen.has(object))];
  const wish = { cell: "", stage: "observe", replaceUnique: [], packDigest: "" } as const;
  const plan = planInstall(app, manifest, wish, new Map());
  return {
    items: withIds(
      gaps
        .filter((gap) => !isDoneInPartitions(gap, tables, plan))
        .map((gap) => ({ ...gap, mendedBy: mendedBy(gap, tables, plan) })),
    ),
    installed: app.pack.schema,
    tenantTables: manifest.tables.filter((table) => table.class === "tenant").length,
  };
}

/** A partitioned table has no rows of its own: what identifies them is its partitions'. */
function isDoneInPartitions(
  { code, object }: Finding,
  tables: readonly TenantTable[],
  plan: Plan,
): boolean {
  const table = tables.find(({ facts }) => facts.name === object);
  if (code !== "KEY_NOT_IN_IDENTITY" || table?.facts.partitioned !== true) return false;
  const leaves = table.leaves.map(({ name }) => name);
  return !plan.steps.some(
    (step) => step.kind === "replica-identity" && leaves.includes(step.object),
  );
}

function mendedBy(
  { code, object }: Finding,
  tables: readonly TenantTable[],
  plan: Plan,
): "install" | "you" {
  const kinds = mendingSteps[code];
  if (kinds === undefined) return "you";
  // A partition is mended through its table, and a partitioned table in its partitions.
  const table = tables.find(
    ({ facts, leaves }) => facts.name === object || leaves.some(({ name }) => name === object),
  );
  const objects = [object, table?.facts.name, ...(table?.leaves ?? []).map(({ name }) => name)];
  return plan.steps.some((step) => kinds.includes(step.kind) && objects.includes(step.object))
    ? "install"
    : "you";
}

/** An id is stable as long as the finding is there; one table may break a rule twice. */
function withIds(
  findings: readonly (Finding & { readonly mendedBy: "install" | "you" })[],
): SchemaFinding[] {
  const seen = new Map<string, number>();
  return findings.map(({ code, severity, object, text, mend, mendedBy: by }) => {
    const plain = `${object}/${code}`;
    const count = (seen.get(plain) ?? 0) + 1;
    seen.set(plain, count);
    const id = count === 1 ? plain : `${plain}/${count}`;
    return { id, code, severity, object, text, mend, mendedBy: by };
  });
}
