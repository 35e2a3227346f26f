/**
 * From the catalog, the manifest and what was asked for: the steps that are left. Pure, and the only
 * place that decides whether a step is done, so that an installation that was cut off anywhere goes
 * on by planning anew.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { ProtectStep } from "../../cell/store/protect.ts";
import { recordManifestSql } from "../../cell/store/table-classes.ts";
import type { AppCatalog } from "./app-catalog.ts";
import { guardSteps, laterStep } from "./plan-guard.ts";
import { identitySteps } from "./plan-identity.ts";
import { keySteps } from "./plan-key.ts";
import { uniqueSteps } from "./plan-unique.ts";
import type { Advice, Plan, Step } from "./step.ts";
import { sqlName } from "./table-name.ts";
import { isKeyCertain, isReady, type TenantTable, tenantTables } from "./tenant-tables.ts";

export type InstallStage = "observe" | "enforce";
export type InstallWish = {
  readonly cell: string;
  readonly stage: InstallStage;
  /** Unique constraints, `schema.table.name`, that may be replaced; or all that can be. */
  readonly replaceUnique: readonly string[] | "all";
  /** Of the SQL pack that this release brings. */
  readonly packDigest: string;
  /** Undefined: as it is. */
  readonly moverRole?: string | undefined;
};

/** The pack's own list of what is left for a table; absent where it could not be asked yet. */
export type ProtectLists = ReadonlyMap<string, readonly ProtectStep[]>;

export function planInstall(
  catalog: AppCatalog,
  manifest: Manifest,
  wish: InstallWish,
  protect: ProtectLists,
): Plan {
  const tables = tenantTables(catalog, manifest);
  const ready = tables.filter(isReady);
  const unique = tables.map((table) => uniqueSteps(table, tables, wish.replaceUnique));
  const pack = packSteps(catalog, wish);
  const steps = [
    ...pack,
    ...manifestSteps(catalog, manifest, pack.length > 0),
    ...ready.flatMap((table) => keySteps(table)),
    ...ready.flatMap((table) => table.leaves.flatMap((leaf) => identitySteps(table, leaf))),
    ...unique.flatMap((one) => one.steps),
    ...ready.flatMap((table) => {
      const list = protect.get(table.facts.name);
      return list === undefined ? [laterStep(table)] : guardSteps(table.facts, list, "on");
    }),
  ];
  return {
    steps,
    advice: [...unkeyed(tables), ...uncertain(tables), ...unique.flatMap((one) => one.advice)],
  };
}

function unkeyed(tables: readonly TenantTable[]): Advice[] {
  return tables
    .filter((table) => !isReady(table))
    .map(({ facts, keyColumn }) => ({
      object: facts.name,
      text: `has no column ${keyColumn}, and no foreign key leads to a table that has one: add the column and fill it, or class the table otherwise`,
      sql: [],
    }));
}

/** Nobody but the application knows whether null means something. */
function uncertain(tables: readonly TenantTable[]): Advice[] {
  return tables
    .filter((table) => isReady(table) && !isKeyCertain(table))
    .map(({ facts, keyColumn, source }) => {
      const [name, key] = [sqlName(facts), escapeIdentifier(keyColumn)];
      const why =
        source === undefined
          ? "may be null"
          : `stays null where ${source.foreignKey.columns.join(", ")} leads nowhere, or to a row without one`;
      return {
        object: facts.name,
        text: `${keyColumn} ${why}: such a row belongs to nobody, is refused in stage enforce, and does not move. Give each its tenant, then`,
        sql: [
          `alter table ${name} add constraint key_not_null check (${key} is not null) not valid;`,
          `alter table ${name} validate constraint key_not_null;`,
          `alter table ${name} alter column ${key} set not null, drop constraint key_not_null;`,
        ],
      };
    });
}

function packSteps(catalog: AppCatalog, wish: InstallWish): Step[] {
  const { pack } = catalog;
  const { moverRole = pack.mover } = wish;
  const isThere =
    pack.digest === wish.packDigest && pack.cell === wish.cell && pack.mover === moverRole;
  const install: Step = {
    id: "install-pack cellfleet",
    kind: "install-pack",
    object: "cellfleet",
    way: "ours",
    lock: "none on your tables",
    why: "guard, lease and ids are functions and tables of a schema of their own",
    undo: "cellctl schema uninstall",
    sql: [`-- the SQL pack, for the cell ${escapeLiteral(wish.cell)}`],
  };
  return isThere ? [] : [install];
}

/** Before tables are guarded: whoever looks meanwhile sees those that still miss their guard. */
function manifestSteps(
  { pack }: AppCatalog,
  manifest: Manifest,
  comesWithPack: boolean,
): readonly Step[] {
  // A pack that stays as it is, and is older than this list, cannot be told.
  if (pack.classes === null && !comesWithPack) return [];
  const wanted = manifest.tables.map((table) => [`${table.schema}.${table.table}`, table.class]);
  const recorded = Object.entries(pack.classes ?? {});
  const isRecorded =
    recorded.length === wanted.length &&
    wanted.every(([name = "", kind]) => pack.classes?.[name] === kind);
  if (isRecorded) return [];
  return [
    {
      id: "record-manifest cellfleet",
      kind: "record-manifest",
      object: "cellfleet",
      way: "ours",
      lock: "none on your tables",
      why: "a table that a later migration adds, and nobody classes, is told by the cell's agent",
      undo: "cellctl schema uninstall",
      sql: [recordManifestSql(manifest)],
    },
  ];
}
