/**
 * `schema check`: what keeps a schema from keeping tenants apart, each finding with the statement
 * that mends it, and with who does that: `schema install`, or a person.
 */
import { readStoreCatalog } from "../../cell/store/catalog.ts";
import { type Finding, type FindingCode, findGaps } from "../../cell/store/coverage.ts";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { planInstall } from "./plan-install.ts";
import type { Plan, StepKind } from "./step.ts";

export type SchemaFinding = {
  readonly id: string;
  readonly code: FindingCode;
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
const aboutRole: readonly FindingCode[] = ["ROLE_TOO_STRONG"];

/** `appRole`: as the application logs in; undefined leaves out what is said of it. */
export async function checkSchema(
  client: Queryable,
  manifest: Manifest,
  appRole: string | undefined,
): Promise<SchemaVerdict> {
  const app = await readAppCatalog(client);
  const role = appRole ?? app.user;
  const gaps = findGaps(manifest, await readStoreCatalog(client, role), role).filter(
    ({ code }) => appRole !== undefined || !aboutRole.includes(code),
  );
  const wish = { cell: "", stage: "observe", replaceUnique: [], packDigest: "" } as const;
  const plan = planInstall(app, manifest, wish, new Map());
  return {
    items: withIds(gaps.map((gap) => ({ ...gap, mendedBy: mendedBy(gap, plan) }))),
    installed: app.pack.schema,
    tenantTables: manifest.tables.filter((table) => table.class === "tenant").length,
  };
}

function mendedBy({ code, object }: Finding, plan: Plan): "install" | "you" {
  const kinds = mendingSteps[code];
  if (kinds === undefined) return "you";
  return plan.steps.some((step) => kinds.includes(step.kind) && step.object === object)
    ? "install"
    : "you";
}

/** An id is stable as long as the finding is there; one table may break a rule twice. */
function withIds(
  findings: readonly (Finding & { readonly mendedBy: "install" | "you" })[],
): SchemaFinding[] {
  const seen = new Map<string, number>();
  return findings.map(({ code, object, text, mend, mendedBy: by }) => {
    const plain = `${object}/${code}`;
    const count = (seen.get(plain) ?? 0) + 1;
    seen.set(plain, count);
    const id = count === 1 ? plain : `${plain}/${count}`;
    return { id, code, object, text, mend, mendedBy: by };
  });
}
