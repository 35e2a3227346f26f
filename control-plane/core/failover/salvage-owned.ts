/**
 * Whose rows a salvage may speak of: those of keys that the cell owned when it was revoked. Its database goes
 * on after that: what a move had left there is removed, a way back brings rows, a tenant that is deleted is
 * purged. All of it is in the same log, and none of it was anybody's write.
 *
 * What must always be true: a change of a key that somebody else owned by then is nobody's loss; a change of
 * no key, or of a table of everybody, is told, since nobody can know whose it is.
 */
import type { Keyspace } from "../../../contract/control-api.ts";
import type { TenantId } from "../../../contract/ids.ts";
import { parseTenantId } from "../../../contract/ids.ts";
import {
  compareBytes,
  rangeKey,
  slotKey,
  slotOf,
  tenantKey,
} from "../../../contract/placement-key.ts";
import { parseLsn, type StorePosition } from "./rpo-position.ts";
import type { LostChange } from "./salvage.ts";

type KnownKeyspace = Pick<Keyspace, "id" | "strategy" | "slotCount" | "ranges">;

export type OwnedKeys = {
  /** Keys that it owned; of one that was taken back, how far of its log the copy there had come, as far as known. */
  readonly owned: ReadonlyMap<string, readonly StorePosition[]>;
  /** Tenants above a container that moves brought to the cell, or took from it: they go by their own key. */
  readonly apart: ReadonlySet<string>;
  /** Keys that it was told to purge since: nobody wants their rows. */
  readonly purged: ReadonlySet<string>;
  readonly keyspaces: ReadonlyMap<string, KnownKeyspace>;
};

type OwnableChange = Pick<LostChange, "store" | "keyspace" | "tenant" | "lsn">;

export function wasOwned(keys: OwnedKeys, change: OwnableChange): boolean {
  const tenant = parseTenantId(change.tenant);
  const keyspace = keys.keyspaces.get(change.keyspace);
  if (tenant === undefined || keyspace === undefined) return true;
  const own = tenantKey(keyspace.id, tenant);
  if (keys.purged.has(own)) return false;
  const container = keys.apart.has(own) ? undefined : containerOf(keyspace, tenant);
  const applied = keys.owned.get(own) ?? keys.owned.get(container ?? "");
  return applied !== undefined && !isApplied(change, applied);
}

function containerOf(keyspace: KnownKeyspace, tenant: TenantId): string | undefined {
  if (keyspace.strategy === "directory") return undefined;
  if (keyspace.strategy === "slots") {
    return slotKey(keyspace.id, slotOf(tenant, keyspace.slotCount ?? 1));
  }
  const start = keyspace.ranges.findLast((from) => compareBytes(from, tenant) <= 0);
  return start === undefined ? undefined : rangeKey(keyspace.id, start);
}

/** A position is where the last commit that was applied ended; of one store alone it stands without a name. */
function isApplied({ store, lsn }: OwnableChange, applied: readonly StorePosition[]): boolean {
  const [only] = applied;
  const at = applied.length === 1 ? only : applied.find(({ name }) => name === store);
  const upTo = parseLsn(at?.remoteLsn);
  const here = parseLsn(lsn);
  return upTo !== undefined && here !== undefined && here < upTo;
}
