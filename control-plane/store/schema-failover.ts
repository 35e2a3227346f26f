/**
 * What detection writes down, beside the tables of `schema-standby.ts`: what routers saw lately, what the
 * leader made of all witnesses, and the policy. Nothing here is needed to go on with a failover; losing it
 * makes detection begin anew.
 */
import { boolean, jsonb, text } from "drizzle-orm/pg-core";
import { failoverPolicies } from "../../contract/failover-api.ts";
import { big, control, when } from "./schema.ts";

/** Exactly one row, made when it is first needed. */
export const failoverDesk = control.table("failover_desk", {
  one: boolean("one").primaryKey().default(true),
  /** As a person set it; null: as control planes were started with. */
  policy: text("policy", { enum: failoverPolicies }),
  policyBy: text("policy_by").notNull().default(""),
  policyReason: text("policy_reason").notNull().default(""),
  policyAt: when("policy_at"),
  /** `Verdict[]` of every whole cell, as the leader of `term` judged at `sightsAt`. */
  sights: jsonb("sights").notNull().default([]),
  sightsAt: when("sights_at"),
  term: big("term").notNull().default(0),
});

/** What each router's data plane saw of each cell: its reports of the last seconds, newest last. */
export const routerSight = control.table("router_sight", {
  router: text("router").primaryKey(),
  /** `{atMs, seen: [{cell, requests, failures}]}[]`, by this database's clock. */
  reports: jsonb("reports").notNull().default([]),
  seenAt: when("seen_at").notNull().defaultNow(),
});
