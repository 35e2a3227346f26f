/** The tables of salvage: rows that only a returned cell has, and what was decided about each. */
import { index, integer, jsonb, text, uniqueIndex } from "drizzle-orm/pg-core";
import { salvageDecisions, salvageVerdicts } from "../../contract/salvage-api.ts";
import { big, control, createdAt, when } from "./schema.ts";

/** One reading of a returned cell; its state is the operation's. */
export const salvage = control.table(
  "salvage",
  {
    op: text("op").primaryKey(),
    cell: text("cell").notNull(),
    failover: text("failover").notNull(),
    createdAt,
  },
  (table) => [index("salvage_cell").on(table.cell)],
);

/** One row of a table, whatever number of changes it saw. */
export const salvageRow = control.table(
  "salvage_row",
  {
    id: big("id").primaryKey().generatedAlwaysAsIdentity(),
    salvage: text("salvage").notNull(),
    annex: text("annex").notNull(),
    store: text("store").notNull(),
    /** `SCHEMA.TABLE`. */
    tableName: text("table_name").notNull(),
    tenant: text("tenant").notNull(),
    key: text("key").notNull().default(""),
    /** Columns of the replica identity. */
    identity: jsonb("identity").notNull(),
    /** Null: it was deleted. */
    row: jsonb("row"),
    theirs: jsonb("theirs"),
    first: text("first", { enum: ["insert", "update", "delete"] }).notNull(),
    last: text("last", { enum: ["insert", "update", "delete"] }).notNull(),
    changes: integer("changes").notNull().default(1),
    lsn: text("lsn").notNull(),
    committedAt: text("committed_at").notNull(),
    verdict: text("verdict", { enum: salvageVerdicts }).notNull().default("homeless"),
    decision: text("decision", { enum: salvageDecisions }).notNull().default("open"),
    note: text("note").notNull().default(""),
    decidedAt: when("decided_at"),
  },
  (table) => [
    uniqueIndex("salvage_row_identity").on(
      table.salvage,
      table.store,
      table.tableName,
      table.identity,
    ),
    index("salvage_row_tenant").on(table.salvage, table.tenant),
  ],
);
