/**
 * Salvage: what a cell that was failed over and came back holds and nobody else has. Its rows are read once,
 * compared with what the tenants' present homes hold, and kept until somebody decided about each of them.
 */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema, opIdSchema } from "./ids.ts";
import { placementKeySchema } from "./placement-key.ts";

/**
 * `free`: the tenant's home has no row of this key (of an update or a deletion: never). `same`: it has
 * this very row. `conflict`: it has another, or none where one was changed. `homeless`: nobody serves the
 * tenant now, or the row names none.
 */
export const salvageVerdicts = ["free", "same", "conflict", "homeless"] as const;
export type SalvageVerdict = (typeof salvageVerdicts)[number];

export const salvageDecisions = ["open", "applied", "exported", "discarded"] as const;
export type SalvageDecision = (typeof salvageDecisions)[number];

const rowValues = z.record(z.string(), z.string().nullable());

export const salvagedRowSchema = z.object({
  /** Of the row in this salvage: pages go on from it. */
  id: z.string(),
  /** `KEYSPACE/tenant/ID` and the like; empty: of no key. */
  key: z.string(),
  tenant: z.string(),
  store: z.string(),
  table: z.string(),
  /** What the changes of the row come to, as the lost cell had them. */
  kind: z.enum(["insert", "update", "delete"]),
  changes: z.number().int(),
  identity: rowValues,
  /** Null: it was deleted. Columns that an update did not change may be missing. */
  row: rowValues.nullable(),
  /** In the tenant's home, when it was looked at; null: no such row. */
  theirs: rowValues.nullable(),
  verdict: z.enum(salvageVerdicts),
  decision: z.enum(salvageDecisions),
  /** Why it could not be applied; empty otherwise. */
  note: z.string(),
  lsn: z.string(),
  committedAt: z.string(),
});
export type SalvagedRow = z.infer<typeof salvagedRowSchema>;

const count = z.number().int().min(0);
export const salvageTenantSchema = z.object({
  tenant: z.string(),
  rows: count,
  free: count,
  same: count,
  conflict: count,
  homeless: count,
  /** Nobody has decided yet; rows that are the same need no decision. */
  open: count,
});

/** Rows that nobody has decided about, alike in all of this. */
export const salvageLeftSchema = z.object({
  tenant: z.string(),
  table: z.string(),
  kind: z.enum(["insert", "update", "delete"]),
  verdict: z.enum(salvageVerdicts),
  /** Why they were not applied; empty: nobody has asked for it, or nothing is in the way. */
  note: z.string(),
  rows: count,
});
export type SalvageLeft = z.infer<typeof salvageLeftSchema>;

export const salvageSchema = z.object({
  /** The operation that read it. */
  id: opIdSchema,
  cell: cellIdSchema,
  failover: opIdSchema,
  state: z.enum(["pending", "running", "done", "failed", "cancelled"]),
  headline: z.string(),
  rows: count,
  open: count,
  /** Keys that no partner could take over: the only copy is its own. */
  stranded: count.default(0),
  tenants: z.array(salvageTenantSchema),
  /** The largest kinds of what is open. */
  left: z.array(salvageLeftSchema).default([]),
  /** Of the cell, now: once it is not quarantined any more it was wiped, or let back. */
  cellState: z.string().default("quarantined"),
  createdAt: z.string(),
});
export type Salvage = z.infer<typeof salvageSchema>;

/** POST /v1/cells/{id}/salvage */
export const startSalvageSchema = z.strictObject({
  /** Default: the last one of the cell. */
  failover: opIdSchema.optional(),
  ...intentSchema.shape,
});

/** POST /v1/cells/{id}/salvage/decide */
export const decideSalvageSchema = z.strictObject({
  decision: z.enum(["apply", "export", "discard"]),
  /** Default: all. */
  tenant: z.string().max(128).optional(),
  /** `apply`: over other rows that the tenant's home has; a deletion never. */
  force: z.boolean().default(false),
  ...intentSchema.shape,
});

/** POST /v1/cells/{id}/salvage/adopt: keys of which only it has a copy go on from that, into whole cells. */
export const adoptStrandedSchema = z.strictObject({ ...intentSchema.shape });

/** POST /v1/cells/{id}/wipe */
export const wipeCellSchema = z.strictObject({
  /** Rows that nobody salvaged or decided about are given up; a reason must be said. */
  discardUnsalvaged: z.boolean().default(false),
  ...intentSchema.shape,
});

/** GET /v1/cells/{id}/homecoming: what failovers took from it, and is elsewhere now. */
export const homecomingSchema = z.object({
  cell: cellIdSchema,
  /** Served elsewhere, and not on their way: may be moved home. */
  keys: z.array(placementKeySchema),
  /** On their way, by moves that are under way. */
  moving: count,
  /** Nobody serves them, or they are suspended: no move takes them. */
  unmovable: z.array(z.object({ key: placementKeySchema, state: z.string() })),
});
export type Homecoming = z.infer<typeof homecomingSchema>;
