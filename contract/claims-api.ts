/**
 * Claims: unique names of tenants. `(namespace, name)` belongs to one tenant (a domain, a webhook's
 * account, an API key), or, in a namespace of cardinality `many`, to several (a person's mail address).
 * A name is reserved, committed and released; only its hash is kept (`alias.ts`).
 */
export const claimCardinalities = ["one", "many"] as const;
export type ClaimCardinality = (typeof claimCardinalities)[number];

/** `reserved`: for a bounded time, for whoever holds the reservation's id. `released`: nobody's. */
export const claimStates = ["reserved", "committed", "released"] as const;
export type ClaimState = (typeof claimStates)[number];
