/**
 * What may be done with a name, decided from its row alone: no database, no clock. A reservation that
 * ran out is nobody's from that moment on, whether somebody has tidied up or not.
 */
import type { ClaimCardinality, ClaimState } from "../../contract/claims-api.ts";
import type { Plan } from "../../contract/control-api.ts";
import { onePlan } from "./ops/machine.ts";

export type NamespaceView = {
  readonly name: string;
  readonly cardinality: ClaimCardinality;
  /** Upper and lower case are the same name. */
  readonly fold: boolean;
  readonly routed: boolean;
};

/** What every fleet has: what people sign in with, what browsers, programs and other services send. */
export const firstNamespaces: readonly NamespaceView[] = [
  { name: "email", cardinality: "many", fold: true, routed: true },
  { name: "domain", cardinality: "one", fold: true, routed: true },
  { name: "api-key", cardinality: "one", fold: false, routed: true },
  { name: "webhook", cardinality: "one", fold: false, routed: true },
];

/** Of the row of one tenant and name; undefined where there is none. */
export type Holding = { readonly state: ClaimState; readonly expired: boolean } | undefined;

/** `done`: it is as it is wanted already. `gone`: there is nothing to do it to. */
export type Step = "go" | "done" | "gone";

const isHeld = (row: Holding): row is NonNullable<Holding> =>
  row !== undefined && row.state !== "released" && !row.expired;

export function commitStep(row: Holding): Step {
  if (!isHeld(row)) return "gone";
  return row.state === "committed" ? "done" : "go";
}

/** By its id a reservation is given back, never a name that was committed since. */
export function releaseStep(row: Holding, by: "name" | "reservation"): "go" | "gone" | "committed" {
  if (!isHeld(row)) return "gone";
  return row.state === "committed" && by === "reservation" ? "committed" : "go";
}

/** Who has a name, in one word. */
export function stateOf(rows: readonly Holding[]): "free" | "reserved" | "committed" {
  const held = rows.filter(isHeld);
  if (held.length === 0) return "free";
  return held.some(({ state }) => state === "committed") ? "committed" : "reserved";
}

export const claimText = (namespace: string, hash: string): string => `${namespace}:${hash}`;

/** `routed`: routers are told, and waited for. */
export function planClaim(
  action: "reserve" | "commit" | "release",
  what: { readonly object: string; readonly tenant: string; readonly routed: boolean },
): Plan {
  const { object, tenant } = what;
  const tells = what.routed && action !== "reserve";
  return onePlan("claim.change", [
    { action, object, text: `${action} it for the tenant ${tenant}` },
    ...(tells
      ? [{ action: "publish", object: "routers", text: "wait until all live routers apply it" }]
      : []),
  ]);
}
