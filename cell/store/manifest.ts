/**
 * The manifest of a store, `cellfleet.schema.yaml`: it classes every table, so that no table is
 * forgotten by guard, move or standby (corrections A20). What is not classed is refused.
 *
 *   version: 1                    # of this grammar; the default
 *   store: default                # which of the cell's stores; the default
 *   keyColumn: tenant_id          # of tables that name none; this is the default
 *   keyspace: default             # likewise
 *   tables:
 *     orders: tenant              # the schema is `public` unless named: `billing.invoices`
 *     accounts: {class: tenant, keyColumn: account_id, keyspace: users}
 *     countries: reference        # the same in every cell
 *     jobs: cell-local            # of this cell alone: never moved
 *     schema_migrations: ignore
 *   idempotency: {table: idempotency, keyColumn: key}   # which requests were served; may be left out
 */
import { parse } from "yaml";
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import { defaultKeyspace, keyspaceNameSchema } from "../../contract/ids.ts";
import { type IdempotencyTable, idempotencyTableSchema } from "../../contract/routing-table.ts";

export const tableClasses = ["tenant", "reference", "cell-local", "ignore"] as const;
export type TableClass = (typeof tableClasses)[number];

const column = z.string().min(1).max(63);
const otherClass = z.enum(["reference", "cell-local", "ignore"]);
const tableSchema = z.union([
  z.enum(tableClasses),
  z.strictObject({
    class: z.literal("tenant"),
    keyColumn: column.optional(),
    keyspace: keyspaceNameSchema.optional(),
  }),
  z.strictObject({ class: otherClass }),
]);

type Wish = {
  readonly class: TableClass;
  readonly keyColumn?: string | undefined;
  readonly keyspace?: string | undefined;
};

/** Of a database as it is found: a name may hold spaces; a dot or a quote would be read as SQL's. */
const namePattern = /^([^."\p{Cc}\p{Zl}\p{Zp}]+\.)?[^."\p{Cc}\p{Zl}\p{Zp}]+$/u;
/** `SCHEMA.TABLE`, or `TABLE`: can a manifest name it? */
export const isTableName = (name: string): boolean => namePattern.test(name);

const manifestSchema = z.strictObject({
  version: z.literal(1).default(1),
  store: z.string().min(1).max(40).default("default"),
  keyColumn: column.default("tenant_id"),
  keyspace: keyspaceNameSchema.default(defaultKeyspace),
  tables: z.record(z.string(), tableSchema),
  idempotency: idempotencyTableSchema.optional(),
});

export type ManifestTable = { readonly schema: string; readonly table: string } & (
  | { readonly class: "tenant"; readonly keyColumn: string; readonly keyspace: string }
  | { readonly class: Exclude<TableClass, "tenant"> }
);

export type Manifest = {
  readonly store: string;
  /** The column that makes a table a tenant's, unless its entry names another. */
  readonly keyColumn: string;
  readonly keyspace: string;
  readonly tables: readonly ManifestTable[];
  /** Asked after a failover whether a write is there; absent: nobody can be asked. */
  readonly idempotency?: IdempotencyTable;
};

/** Throws `CONFIG_INVALID` with every fault, each with the place where it stands. */
export function parseManifest(text: string): Manifest {
  const parsed = manifestSchema.safeParse(readYaml(text));
  if (!parsed.success) {
    throw invalid(parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`));
  }
  const { store, keyColumn, keyspace, tables, idempotency } = parsed.data;
  const misnamed = Object.keys(tables).filter((name) => !isTableName(name));
  if (misnamed.length > 0) {
    throw invalid(
      misnamed.map(
        (name) =>
          `tables.${name}: must be TABLE or SCHEMA.TABLE, neither with a dot, a quote or a control character`,
      ),
    );
  }
  const named = Object.entries(tables).map(([name, entry]): ManifestTable => {
    const [schema, table] = name.includes(".") ? name.split(".") : ["public", name];
    const place = { schema: schema ?? "public", table: table ?? name };
    const wish: Wish = typeof entry === "string" ? { class: entry } : entry;
    if (wish.class !== "tenant") return { ...place, class: wish.class };
    return { ...place, class: "tenant", keyColumn, keyspace, ...definedOf(wish) };
  });
  const twice = named
    .map(({ schema, table }) => `${schema}.${table}`)
    .filter((name, index, all) => all.indexOf(name) !== index);
  if (twice.length > 0) throw invalid(twice.map((name) => `tables: ${name} is classed twice`));
  const plain = { store, keyColumn, keyspace, tables: named };
  return idempotency === undefined
    ? plain
    : { ...plain, idempotency: recordsOf(plain, idempotency) };
}

/** Throws CONFIG_INVALID: of a table that does not move with its tenants it would tell nothing. */
function recordsOf(manifest: Manifest, wanted: IdempotencyTable): IdempotencyTable {
  const table = manifest.tables.find(
    (one) =>
      [one.table, `${one.schema}.${one.table}`].includes(wanted.table) && one.class === "tenant",
  );
  if (table?.class !== "tenant") {
    throw invalid([`idempotency.table: ${wanted.table} is no table of class tenant`]);
  }
  return { tenantColumn: table.keyColumn, ...wanted, table: `${table.schema}.${table.table}` };
}

function definedOf(wish: Wish): { readonly keyColumn?: string; readonly keyspace?: string } {
  return {
    ...(wish.keyColumn === undefined ? {} : { keyColumn: wish.keyColumn }),
    ...(wish.keyspace === undefined ? {} : { keyspace: wish.keyspace }),
  };
}

function readYaml(text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    throw invalid([error instanceof Error ? error.message : String(error)]);
  }
}

const invalid = (faults: readonly string[]): CellError =>
  new CellError("CONFIG_INVALID", `The manifest is not valid: ${faults.join("; ")}`, {
    nextSteps: ["mend cellfleet.schema.yaml"],
    details: { faults },
  });
