/**
 * Claims: unique names of tenants. `(namespace, name)` belongs to one tenant (a domain, a webhook's
 * account, an API key), or, in a namespace of cardinality `many`, to several (a person's mail address).
 * A name is reserved, committed and released; only its hash is kept (`alias.ts`): no answer of this
 * API holds a name.
 */
import { z } from "zod";
import { aliasHashSchema, aliasNameMax, aliasNamespaceSchema } from "./alias.ts";
import { acceptedSchema, intentSchema } from "./control-api.ts";
import { keyspaceNameSchema, tenantIdSchema } from "./ids.ts";

export const claimCardinalities = ["one", "many"] as const;
export type ClaimCardinality = (typeof claimCardinalities)[number];

/** `reserved`: for a bounded time, for whoever holds the reservation's id. `released`: nobody's. */
export const claimStates = ["reserved", "committed", "released"] as const;
export type ClaimState = (typeof claimStates)[number];

const timestamp = z.string().max(40);

export const claimNamespaceSchema = z.object({
  /** The name, as every object of a list carries an id. */
  id: aliasNamespaceSchema,
  name: aliasNamespaceSchema,
  cardinality: z.enum(claimCardinalities),
  /** Upper and lower case are the same name. */
  fold: z.boolean(),
  /** Committed names travel with the routing table, so that routers find tenants by them. */
  routed: z.boolean(),
  createdAt: timestamp,
});
export type ClaimNamespace = z.infer<typeof claimNamespaceSchema>;

/** None of it can be changed later: names that are claimed rest on it. */
export const createClaimNamespaceSchema = intentSchema.extend({
  name: aliasNamespaceSchema,
  cardinality: z.enum(claimCardinalities).default("one"),
  fold: z.boolean().default(false),
  routed: z.boolean().default(false),
});

/** `NAMESPACE.HASH.SECRET`: whoever holds it may commit or release the reservation, nobody else. */
export const reservationSchema = z
  .string()
  .max(120)
  .regex(/^[a-z0-9-]{2,40}\.[A-Za-z0-9_-]{22}\.[0-9a-f]{32}$/, "is not the id of a reservation");

export const claimSchema = z.object({
  /** `NAMESPACE:HASH`. */
  id: z.string(),
  namespace: aliasNamespaceSchema,
  hash: aliasHashSchema,
  keyspace: keyspaceNameSchema,
  tenant: tenantIdSchema,
  state: z.enum(claimStates),
  /** Of a reservation: free again from then on, whether somebody tidied up or not. */
  expiresAt: timestamp.nullable(),
  createdAt: timestamp,
});
export type Claim = z.infer<typeof claimSchema>;

/** Where a name is spoken of. It arrives in clear, is hashed at once, and is kept nowhere. */
const named = {
  namespace: aliasNamespaceSchema,
  value: z.string().min(1).max(aliasNameMax),
};
const owned = {
  ...named,
  tenant: tenantIdSchema,
  /** Default: the keyspace that the tenant is registered in. */
  keyspace: keyspaceNameSchema.optional(),
};

export const claimSecondsMax = 86_400;
export const reserveClaimSchema = intentSchema.extend({
  ...owned,
  ttlSeconds: z.number().int().min(1).max(claimSecondsMax).default(600),
});
/** Reserve and commit at once. */
export const commitNameSchema = intentSchema.extend(owned);
export const commitReservationSchema = intentSchema.extend({ reservation: reservationSchema });
/** By name and tenant, or a reservation by its id. */
export const releaseClaimSchema = z.union([
  intentSchema.extend(owned),
  intentSchema.extend({ reservation: reservationSchema }),
]);
export const checkClaimSchema = z.strictObject(named);

/** 201: reserved, or reserved or committed for this tenant before. */
export const reservedSchema = z.object({
  claim: claimSchema,
  reservation: reservationSchema,
  next_steps: z.array(z.string()),
});

/** Commit and release: done when live routers serve it, in a namespace that is routed. */
export const claimAcceptedSchema = acceptedSchema.extend({ claim: claimSchema });

export const claimCheckSchema = z.object({
  namespace: aliasNamespaceSchema,
  taken: z.boolean(),
  /** `committed` when at least one tenant has it for good. */
  state: z.enum(["free", "reserved", "committed"]),
  /** Whose; operators alone are told, and of a name of one tenant only. */
  tenant: tenantIdSchema.optional(),
  /** All of them, for operators. */
  claims: z.array(claimSchema).optional(),
});
export type ClaimCheck = z.infer<typeof claimCheckSchema>;

/** Names of one call; a file of more is sent in several. */
export const claimImportNamesMax = 10_000;
/** One line of a file of names. */
export const importedNameSchema = z.strictObject(owned);
/** All of them or none; a name that its tenant has already is no mistake, so a call can be repeated. */
export const importClaimsSchema = intentSchema.extend({
  names: z.array(importedNameSchema).min(1).max(claimImportNamesMax),
});

export const claimImportResultSchema = z.object({
  /** Null when nothing was to be done, and of a dry run. */
  op: acceptedSchema.shape.op.nullable(),
  /** Names committed now, and names that their tenants had already. */
  committed: z.number(),
  unchanged: z.number(),
  next_steps: z.array(z.string()),
});
