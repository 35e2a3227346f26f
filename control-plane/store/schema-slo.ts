/** The tables of service level objectives: what is wanted, what was counted, what was made of it. */
import {
  boolean,
  doublePrecision,
  index,
  integer,
  jsonb,
  // biome-ignore lint/suspicious/noDeprecatedImports: one overload of it is deprecated, not the one used here.
  primaryKey,
  text,
} from "drizzle-orm/pg-core";
import { big, control, when } from "./schema.ts";

export const sloObjective = control.table("slo_objective", {
  id: text("id").primaryKey(),
  /** `*` in these three: as `slo-api.ts` says. */
  cell: text("cell").notNull(),
  service: text("service").notNull(),
  tier: text("tier").notNull(),
  target: doublePrecision("target").notNull(),
  windowDays: integer("window_days").notNull(),
  by: text("set_by").notNull().default(""),
  reason: text("reason").notNull().default(""),
  since: when("since").notNull().defaultNow(),
});

/** Requests of a minute, of an hour once it is old. Tier "": of all tenants, as routers saw them. */
export const sloCount = control.table(
  "slo_count",
  {
    cell: text("cell").notNull(),
    service: text("service").notNull(),
    tier: text("tier").notNull(),
    grain: text("grain", { enum: ["minute", "hour"] }).notNull(),
    at: when("at").notNull(),
    requests: big("requests").notNull(),
    failures: big("failures").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.cell, table.service, table.tier, table.grain, table.at] }),
    index("slo_count_at").on(table.at),
  ],
);

/** How far each process that counts has been heard, so that what it says twice counts once. */
export const sloSource = control.table("slo_source", {
  source: text("source").primaryKey(),
  /** Of a router all its requests, of an agent the number of its last batch. */
  total: big("total").notNull(),
  /** `servedCountSchema[]` of a router, as it said last and the time before. */
  counts: jsonb("counts").notNull().default([]),
  before: jsonb("before").notNull().default([]),
  at: when("at").notNull().defaultNow(),
});

/** Exactly one row: what the leader made of all of it, for the safety rules. */
export const sloDesk = control.table("slo_desk", {
  one: boolean("one").primaryKey().default(true),
  /** In words. */
  burnt: text("burnt").array().notNull(),
  at: when("at").notNull(),
});
