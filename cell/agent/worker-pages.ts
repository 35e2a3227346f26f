/**
 * The part of the admin port that an application's own workers ask: where a tenant lives, and which
 * keys are active here. Read-only, from memory, the control plane not needed.
 */
import { CellError } from "../../contract/errors.ts";
import { parseKeyspaceName } from "../../contract/ids.ts";
import type { GateView } from "./gate-decision.ts";
import { listOwned, type OwnedKeys, type OwnedPage, pageDefault, pageMax } from "./owned-list.ts";
import { type Resolved, type ResolveView, resolve } from "./resolve.ts";

export type WorkerParts = {
  readonly view: () => GateView;
  readonly cache: OwnedKeys;
  readonly table: () => ResolveView["table"];
};

export type WorkerPages = Readonly<Record<string, (query: URLSearchParams) => unknown>>;

/** Each throws `CellError`. */
export function createWorkerPages(parts: WorkerParts): WorkerPages {
  return {
    "/resolve": (query): Resolved => {
      const { cell, placement } = parts.view();
      return resolve(query, { cell, placement, table: parts.table() });
    },
    "/owned": (query) => readOwned(query, parts),
  };
}

type Owned = OwnedPage & { readonly lease_remaining_ms: number };

function readOwned(query: URLSearchParams, { view, cache }: WorkerParts): Owned {
  const { stage, fresh, leaseRemainingMs } = view();
  // A worker that got a list would act on it; in these states it must not.
  if (stage === "enforce" && !fresh) {
    throw new CellError("GATE_CLOSED", "The cell's database has been out of sight for too long.");
  }
  if (stage === "enforce" && leaseRemainingMs <= 0) {
    throw new CellError("LEASE_MISSING", "The cell holds no live lease.");
  }
  const limitRaw = query.get("limit") ?? String(pageDefault);
  const limit = /^\d{1,5}$/.test(limitRaw) ? Number(limitRaw) : 0;
  if (limit < 1 || limit > pageMax) throw invalid(`limit: 1 to ${pageMax}.`);
  const keyspaceRaw = query.get("keyspace");
  const keyspace = keyspaceRaw === null ? undefined : parseKeyspaceName(keyspaceRaw);
  if (keyspaceRaw !== null && keyspace === undefined) {
    throw invalid("keyspace: not the name of a keyspace.");
  }
  const page = listOwned(cache, { keyspace, cursor: query.get("cursor") ?? "", limit });
  if (page === undefined) throw invalid("cursor: not one of an earlier page's.");
  return { ...page, lease_remaining_ms: Math.floor(leaseRemainingMs) };
}

const invalid = (message: string): CellError => new CellError("VALIDATION_FAILED", message);
