/** The tables of the rules that protect the fleet. */
import { boolean, jsonb, text } from "drizzle-orm/pg-core";
import { control, when } from "./schema.ts";

/** Exactly one row. */
export const safety = control.table("safety", {
  one: boolean("one").primaryKey().default(true),
  leverEngaged: boolean("lever_engaged").notNull().default(false),
  leverBy: text("lever_by").notNull().default(""),
  leverReason: text("lever_reason").notNull().default(""),
  leverSince: when("lever_since"),
  /** `safetyLimitsSchema`; what is absent is as it is by default. */
  limits: jsonb("limits").notNull().default({}),
});

export const safetySwitch = control.table("safety_switch", {
  id: text("id").primaryKey(),
  open: boolean("open").notNull(),
  kinds: text("kinds").array().notNull(),
  by: text("set_by").notNull(),
  reason: text("reason").notNull(),
  since: when("since").notNull().defaultNow(),
});
