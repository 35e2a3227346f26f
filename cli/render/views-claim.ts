/** How names of tenants look to people: as hashes, because that is all there is. */
import type { z } from "zod";
import type {
  Claim,
  ClaimCheck,
  ClaimNamespace,
  claimImportResultSchema,
  reservedSchema,
} from "../../contract/claims-api.ts";
import type { View } from "./output.ts";
import { age } from "./units.ts";

export const namespaceView: View<ClaimNamespace> = {
  id: ({ name }) => name,
  columns: [
    { head: "NAMESPACE", cell: ({ name }) => name },
    {
      head: "A-NAME-BELONGS-TO",
      cell: ({ cardinality }) => (cardinality === "one" ? "one tenant" : "many tenants"),
    },
    { head: "UPPER-CASE", cell: ({ fold }) => (fold ? "is the same" : "differs") },
    { head: "ROUTED", cell: ({ routed }) => (routed ? "yes" : "no") },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
};

export const claimView: View<Claim> = {
  id: ({ id }) => id,
  columns: [
    { head: "NAMESPACE", cell: ({ namespace }) => namespace },
    { head: "HASH", cell: ({ hash }) => hash },
    { head: "TENANT", cell: ({ tenant }) => tenant },
    { head: "KEYSPACE", cell: ({ keyspace }) => keyspace, wide: true },
    { head: "STATE", cell: ({ state }) => state, state: true },
    { head: "EXPIRES", cell: ({ expiresAt }) => expiresAt ?? "never" },
    { head: "AGE", cell: ({ createdAt }, nowMs) => age(createdAt, nowMs) },
  ],
};

export const reservedView: View<z.infer<typeof reservedSchema>> = {
  id: ({ reservation }) => reservation,
  columns: [{ head: "RESERVATION", cell: ({ reservation }) => reservation }],
  details: ({ claim, reservation }) => [
    ["reservation", reservation],
    ["namespace", claim.namespace],
    ["tenant", claim.tenant],
    ["state", claim.state],
    ["expires", claim.expiresAt ?? "never"],
  ],
};

export const claimCheckView: View<ClaimCheck> = {
  id: ({ state }) => state,
  columns: [{ head: "STATE", cell: ({ state }) => state }],
  details: ({ namespace, taken, state, claims = [] }) => [
    ["namespace", namespace],
    ["taken", taken ? "yes" : "no"],
    ["state", state],
    ...(claims.length === 0
      ? []
      : [["tenants", claims.map((one) => `${one.tenant}  ${one.state}`)] as const]),
  ],
};

export const claimImportView: View<z.infer<typeof claimImportResultSchema>> = {
  id: ({ op }) => op?.id ?? "",
  columns: [{ head: "COMMITTED", cell: ({ committed }) => String(committed) }],
  details: (result) => [
    ["committed", String(result.committed)],
    ["unchanged", String(result.unchanged)],
    ["operation", result.op === null ? "none" : `${result.op.id} ${result.op.state}`],
  ],
};
