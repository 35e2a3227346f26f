/**
 * The tables of moves, beside those of `schema.ts`. A move is an operation (`op`, kind `tenant.move`,
 * whose `step`, `version` and `attempt` are the move's own); here stands what only a move has.
 */
import { sql } from "drizzle-orm";
import {
  boolean,
  index,
  jsonb,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
  uniqueIndex,
} from "drizzle-orm/pg-core";
import { moveWishes } from "../core/move/move-view.ts";
import { big, control, createdAt, when } from "./schema.ts";

export const move = control.table(
  "move",
  {
    op: text("op").primaryKey(),
    keyspace: text("keyspace").notNull(),
    source: text("source").notNull(),
    target: text("target").notNull(),
    /** `movePlanSchema`; before the preflight of the executor, that of the API. */
    plan: jsonb("plan").notNull(),
    /** `moveOptionsSchema`. */
    options: jsonb("options").notNull(),
    wish: text("wish", { enum: moveWishes }).notNull().default("none"),
    paused: boolean("paused").notNull().default(false),
    /** The move whose stream this one goes back on. */
    reverses: text("reverses"),
    /** Switches that were tried. */
    tries: big("tries").notNull().default(0),
    /** The route's revision at which routers hold, at which they follow the new owner; for their acknowledgement. */
    holdRevision: big("hold_revision"),
    releaseRevision: big("release_revision"),
    /** `moveProgressSchema`, written now and then while a step takes long. */
    progress: jsonb("progress").notNull().default({}),
    /** `pausePartsSchema` of the switch that was committed. */
    pause: jsonb("pause"),
    /** `moveVerificationSchema[]`; evidence is never thrown away. */
    verifications: jsonb("verifications").notNull().default([]),
    soakUntil: when("soak_until"),
    /** Why it is being taken back: `{code, message, nextSteps}`; null for a cancellation. */
    failure: jsonb("failure"),
    createdAt,
  },
  (table) => [
    index("move_source").on(table.source),
    index("move_target").on(table.target),
    index("move_reverses").on(table.reverses),
  ],
);

/** Keys of a move. While it is open no other operation may change them. */
export const moveKey = control.table(
  "move_key",
  {
    op: text("op").notNull(),
    key: text("key").notNull(),
    /** At the source, when the move began; the target gets the next one. */
    epoch: big("epoch").notNull(),
    open: boolean("open").notNull().default(true),
  },
  (table) => [
    primaryKey({ columns: [table.op, table.key] }),
    uniqueIndex("move_key_open").on(table.key).where(sql`open`),
  ],
);

export const moveObjectKinds = [
  "publication",
  "slot",
  "subscription",
  /** Rows of the keys that are not served there. */
  "rows",
  /** The key's line in the cell's own list of ownership. */
  "ownership",
  "gate",
] as const;

/**
 * What a move makes in cells' databases, recorded before it is made: whoever goes on after a crash finds
 * here what may stand there. A row leaves when its object is certainly gone.
 */
export const moveObject = control.table(
  "move_object",
  {
    op: text("op").notNull(),
    cell: text("cell").notNull(),
    store: text("store").notNull(),
    kind: text("kind", { enum: moveObjectKinds }).notNull(),
    name: text("name").notNull(),
    createdAt,
  },
  (table) => [primaryKey({ columns: [table.op, table.cell, table.store, table.kind, table.name] })],
);
