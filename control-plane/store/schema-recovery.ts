/**
 * The tables of recovery after a restore, beside those of `schema.ts`: what cells say, and what a cell that
 * does not own a key must be told.
 */
import {
  boolean,
  index,
  integer,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
} from "drizzle-orm/pg-core";
import { ownershipStates } from "../../contract/cell-protocol.ts";
import { recoveryCellStates } from "../core/recovery.ts";
import { big, control, when } from "./schema.ts";

/**
 * What a cell that does not own a key must be told about it: after a recovery, the lower claimants.
 * An agent's `changes` are its rows of `placement` and of this table, in order of revision.
 */
export const disowned = control.table(
  "disowned",
  {
    cell: text("cell").notNull(),
    key: text("key").notNull(),
    state: text("state", { enum: ownershipStates }).notNull(),
    epoch: big("epoch").notNull(),
    op: text("op").notNull(),
    attempt: integer("attempt").notNull().default(0),
    revision: big("revision").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.cell, table.key] }),
    index("disowned_cell_revision").on(table.cell, table.revision),
  ],
);

/** One row per cell that recovery waits for, or that came through it frozen. */
export const recoveryCell = control.table("recovery_cell", {
  cell: text("cell").primaryKey(),
  state: text("state", { enum: recoveryCellStates }).notNull(),
  /** Keys reported so far. */
  claims: big("claims").notNull().default(0),
  /** It held a lease when it was first heard: nobody has taken over from it. */
  leased: boolean("leased").notNull().default(false),
  /** It held one for some of its keys at least, and its database has run since before the backup. */
  steady: boolean("steady").notNull().default(false),
  reason: text("reason").notNull().default(""),
  updatedAt: when("updated_at").notNull().defaultNow(),
});

/** What cells say they own, while recovery collects; emptied when it is over. */
export const recoveryClaim = control.table(
  "recovery_claim",
  {
    key: text("key").notNull(),
    cell: text("cell").notNull(),
    state: text("state", { enum: ownershipStates }).notNull(),
    epoch: big("epoch").notNull(),
  },
  (table) => [primaryKey({ columns: [table.key, table.cell] })],
);
