/**
 * Shapes of `-o json` that are the CLI's own, for commands whose answer does not come from the API.
 * All other commands print the contract's objects.
 */
import { z } from "zod";

export const contextItemSchema = z.object({
  id: z.string(),
  addr: z.string(),
  tokenFile: z.string().nullable(),
  current: z.boolean(),
});

/** `context current`. */
export const foundSchema = z.object({ addr: z.string(), from: z.string() });

/** `skipped`: could not be looked at, because of another check that failed. */
export const checkStates = ["ok", "warn", "failed", "skipped"] as const;
export const checkSchema = z.object({
  id: z.string(),
  state: z.enum(checkStates),
  text: z.string(),
  /** How to mend it; null where there is nothing to mend. */
  fix: z.string().nullable(),
});
export type Check = z.infer<typeof checkSchema>;

export const versionSchema = z.object({
  release: z.string(),
  contract: z.number(),
  node: z.string(),
  /** Of the fleet's control plane; null when none answers. */
  fleet: z.string().nullable(),
});

export const explainedSchema = z.object({
  id: z.string(),
  kind: z.enum(["error", "sqlstate", "kind", "field"]),
  text: z.string(),
  /** Facts by name: exit code, HTTP status, fields of a kind. */
  facts: z.record(z.string(), z.string()),
});

/** `dev ps`: one process of the local fleet. */
export const unitSchema = z.object({
  id: z.string(),
  state: z.string(),
  pid: z.number().nullable(),
  restarts: z.number(),
  text: z.string(),
});
