/** One thing that a cell's database needs, and whether it is there. */

/** `must`: a cell cannot be kept safe without it. `should`: works, at a price that is told. */
export type Severity = "must" | "should";

export type PreflightItem = {
  /** Stable: scripts name it. */
  readonly id: string;
  readonly group: "server" | "connection" | "grant";
  readonly severity: Severity;
  readonly state: "ok" | "warn" | "failed" | "skipped";
  /** What was found, in a few words. */
  readonly text: string;
  /** What is needed. */
  readonly wanted: string;
  /** What breaks without it. */
  readonly why: string;
  /** Null where there is nothing to mend. */
  readonly fix: string | null;
};

export type Need = Omit<PreflightItem, "state" | "text" | "fix">;

export const serverNeed = (id: string, severity: Severity, wanted: string, why: string): Need => ({
  id,
  group: "server",
  severity,
  wanted,
  why,
});

export const grantNeed = (id: string, severity: Severity, wanted: string, why: string): Need => ({
  id,
  group: "grant",
  severity,
  wanted,
  why,
});

/** A missing `must` is a failure, a missing `should` a warning. */
export const judged = (
  need: Need,
  seen: { readonly ok: boolean; readonly text: string; readonly fix: string },
): PreflightItem => ({
  ...need,
  state: seen.ok ? "ok" : need.severity === "must" ? "failed" : "warn",
  text: seen.text,
  fix: seen.ok ? null : seen.fix,
});

export const unseen = (need: Need, text: string): PreflightItem => ({
  ...need,
  state: "skipped",
  text,
  fix: null,
});
