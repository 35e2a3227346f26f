/** Standbys, and what of each cell's tenants could be taken over, for people. */
import type { z } from "zod";
import type { Standby } from "../../contract/standby-api.ts";
import type { protectionSchema } from "../../contract/standby-requests.ts";
import type { View } from "./output.ts";
import { bytes, count, counted } from "./units.ts";

const range = ({ buckets: { lo, hi } }: Standby): string => `${lo}-${hi}`;
const lagBytes = (one: Standby): string => (one.lagBytes === null ? "-" : bytes(one.lagBytes));
const lagTime = (one: Standby): string =>
  one.lagSeconds === null ? "-" : `${Math.round(one.lagSeconds * 10) / 10}s`;

export const standbyView: View<Standby> = {
  id: ({ id }) => id,
  columns: [
    { head: "STANDBY", cell: ({ id }) => id },
    { head: "OF", cell: ({ origin }) => origin },
    { head: "PARTNER", cell: ({ host }) => host },
    { head: "BUCKETS", cell: range },
    { head: "STATE", cell: ({ state }) => state, state: true },
    { head: "LAG", cell: lagTime, right: true },
    { head: "LAG BYTES", cell: lagBytes, right: true },
    { head: "APP", cell: ({ warm }) => (warm ? "warm" : "cold"), wide: true },
    { head: "KEYS", cell: ({ keys }) => count(keys), right: true, wide: true },
    { head: "PROVIDER", cell: ({ provider }) => provider, wide: true },
    { head: "WHY", cell: ({ reason }) => reason, wide: true },
  ],
  details: (one) => [
    ["standby", one.id],
    ["of", one.origin],
    ["partner", one.host],
    ["buckets", range(one)],
    ["state", one.state],
    ["why", one.reason],
    ["provider", one.provider],
    ["lag", `${lagTime(one)}, ${lagBytes(one)}`],
    ["keys", counted(one.keys, "key")],
    ["application", one.warm ? "runs already" : "is started when it takes over"],
  ],
};

/** One line for each cell of which a failover could not take everything. */
export const unprotectedLines = (
  cells: ReadonlyArray<z.infer<typeof protectionSchema>>,
): readonly string[] =>
  cells
    .filter(({ reason }) => reason !== "")
    .map(({ id, host, tenants, unprotected, reason }) => {
      const what =
        tenants === 0
          ? "no standby of all its buckets"
          : `${count(unprotected)} of ${counted(tenants, "tenant")} without a standby`;
      return `${host ?? id}: ${what}: ${reason}`;
    });

/** One line per standby of a cell's, and per standby of others that it keeps. */
export const standbyLines = (cell: string, standbys: readonly Standby[]): readonly string[] =>
  standbys
    .filter(({ origin, host }) => origin === cell || host === cell)
    .map((one) =>
      one.origin === cell
        ? `${one.host} keeps its buckets ${range(one)}: ${one.state}, ${lagTime(one)} behind`
        : `it keeps buckets ${range(one)} of ${one.origin}: ${one.state}`,
    );
