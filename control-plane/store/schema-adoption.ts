/**
 * The tables of adoption, names and erasure, beside those of `schema.ts`: ids that are spent, purges
 * that cells have to confirm, names of tenants as hashes, questions of operators to all cells.
 */
import { sql } from "drizzle-orm";
import {
  boolean,
  index,
  integer,
  jsonb,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
  uniqueIndex,
} from "drizzle-orm/pg-core";
import { claimCardinalities, claimStates } from "../../contract/claims-api.ts";
import { big, control, createdAt, when } from "./schema.ts";

/** Ids that are spent: a deleted tenant's id never names another tenant. With the receipt of the erasure. */
export const tombstone = control.table(
  "tombstone",
  {
    keyspace: text("keyspace").notNull(),
    tenant: text("tenant").notNull(),
    op: text("op").notNull(),
    /** What was removed where; complete when the operation is done. */
    receipt: jsonb("receipt").notNull().default({}),
    deletedAt: when("deleted_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.keyspace, table.tenant] })],
);

/** One row per deletion and cell that has to confirm that no row of the tenant is left. */
export const purge = control.table(
  "purge",
  {
    op: text("op").notNull(),
    cell: text("cell").notNull(),
    key: text("key").notNull(),
    /** Null until the cell has confirmed; rows removed per table. */
    rows: jsonb("rows"),
    confirmedAt: when("confirmed_at"),
  },
  (table) => [
    primaryKey({ columns: [table.op, table.cell] }),
    index("purge_open").on(table.cell).where(sql`confirmed_at is null`),
  ],
);

/** Kinds of names; `one`: a name belongs to one tenant at most. */
export const claimNamespace = control.table("claim_namespace", {
  name: text("name").primaryKey(),
  cardinality: text("cardinality", { enum: claimCardinalities }).notNull(),
  /** Upper and lower case are the same name. */
  fold: boolean("fold").notNull(),
  /** Its committed names travel with the routing table. */
  routed: boolean("routed").notNull(),
  createdAt,
});

/**
 * Names of tenants, as hashes. A row that is released stays as a tombstone while its namespace is
 * routed, so that "what changed since revision R" is one index scan, as for placements.
 */
export const claim = control.table(
  "claim",
  {
    namespace: text("namespace").notNull(),
    hash: text("hash").notNull(),
    keyspace: text("keyspace").notNull(),
    tenant: text("tenant").notNull(),
    state: text("state", { enum: claimStates }).notNull(),
    /** Copied from the namespace: the unique index below needs it. */
    exclusive: boolean("exclusive").notNull(),
    /** Of a reservation: who may commit it, and until when. */
    reservation: text("reservation"),
    expiresAt: when("expires_at"),
    /** Of the last change that routers have to hear of; null while it never was in the table. */
    revision: big("revision"),
    createdAt,
  },
  (table) => [
    primaryKey({ columns: [table.namespace, table.hash, table.keyspace, table.tenant] }),
    uniqueIndex("claim_exclusive")
      .on(table.namespace, table.hash)
      .where(sql`exclusive and state <> 'released'`),
    index("claim_revision").on(table.revision).where(sql`revision is not null`),
    index("claim_tenant").on(table.keyspace, table.tenant),
    index("claim_expiry").on(table.expiresAt).where(sql`state = 'reserved'`),
  ],
);

/** Questions of operators to all cells; removed some time after their deadline. */
export const query = control.table("query", {
  id: text("id").primaryKey(),
  actor: text("actor").notNull(),
  sql: text("sql").notNull(),
  cells: text("cells").array().notNull(),
  rowsMax: integer("rows_max").notNull(),
  timeoutMs: integer("timeout_ms").notNull(),
  createdAt,
  deadlineAt: when("deadline_at").notNull(),
});

export const queryAnswer = control.table(
  "query_answer",
  {
    query: text("query").notNull(),
    cell: text("cell").notNull(),
    answer: jsonb("answer").notNull(),
    at: when("at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.query, table.cell] })],
);
