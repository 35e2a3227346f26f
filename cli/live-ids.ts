/** Ids of the fleet for completion: the first page of a list, within a short time or not at all. */
import { z } from "zod";
import { createApi } from "./api.ts";
import { findFleet } from "./fleet.ts";
import type { Io } from "./io.ts";

const idsMax = 100;

/** Where the ids of a kind are listed. `prefix` where the API can narrow a long list itself. */
const lists: Readonly<Record<string, { readonly path: string; readonly prefix?: true }>> = {
  cell: { path: "/v1/cells" },
  cells: { path: "/v1/cells" },
  tenant: { path: "/v1/tenants", prefix: true },
  keyspace: { path: "/v1/keyspaces" },
  op: { path: "/v1/ops" },
  move: { path: "/v1/moves" },
  tenants: { path: "/v1/tenants", prefix: true },
  router: { path: "/v1/routers" },
  "token-id": { path: "/v1/tokens" },
  namespace: { path: "/v1/claim-namespaces" },
  override: { path: "/v1/overrides" },
};
const itemSchema = z.object({ id: z.string().optional(), name: z.string().optional() });

export async function liveIds(
  io: Io,
  kind: string,
  words: readonly string[],
  options: { readonly prefix: string; readonly timeoutMs: number },
): Promise<string[]> {
  const source = Object.hasOwn(lists, kind) ? lists[kind] : undefined;
  if (source === undefined) return [];
  const fleet = await findFleet(io, { ...named(words, "--context"), ...named(words, "--data") });
  const api = createApi(fleet, AbortSignal.timeout(options.timeoutMs));
  try {
    const query = source.prefix === true ? { prefix: options.prefix } : {};
    for await (const { items } of api.pages(source.path, itemSchema, { query, limit: idsMax })) {
      return items.flatMap(({ id, name }) => id ?? name ?? []);
    }
    return [];
  } finally {
    await api.close();
  }
}

function named(words: readonly string[], option: "--context" | "--data"): Record<string, string> {
  const at = words.indexOf(option);
  const value = at === -1 ? undefined : words[at + 1];
  return value === undefined ? {} : { [option.slice(2)]: value };
}
