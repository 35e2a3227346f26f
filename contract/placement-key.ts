/**
 * Placement keys: the unit that is owned, fenced and moved.
 *
 * A key is a tenant, an id range or a hash slot of one keyspace, written as one text that is the
 * same in the control plane, in the routing table, in headers and in a cell's database:
 * `default/tenant/acme`, `users/slot/77`, `logs/range/m` (from `m` up to the next range's start).
 * A tenant key in a keyspace of slots or ranges is an override: it stands above its container.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { KeyspaceName, TenantId } from "./ids.ts";
import { parseKeyspaceName, parseTenantId } from "./ids.ts";

declare const brand: unique symbol;
export type PlacementKey = string & { readonly [brand]: "PlacementKey" };

export const keyKinds = ["tenant", "slot", "range"] as const;
export type KeyKind = (typeof keyKinds)[number];

/** Hash slots of a keyspace are numbered below this; a keyspace may use a smaller power of two. */
export const slotCountMax = 16_384;

export type KeyParts =
  | { readonly keyspace: KeyspaceName; readonly kind: "tenant"; readonly tenant: TenantId }
  | { readonly keyspace: KeyspaceName; readonly kind: "slot"; readonly slot: number }
  | { readonly keyspace: KeyspaceName; readonly kind: "range"; readonly from: string };

export const tenantKey = (keyspace: KeyspaceName, tenant: TenantId): PlacementKey =>
  `${keyspace}/tenant/${tenant}` as PlacementKey;
export const slotKey = (keyspace: KeyspaceName, slot: number): PlacementKey =>
  `${keyspace}/slot/${slot}` as PlacementKey;
/** The first range of a keyspace starts at the empty text: `logs/range/`. */
export const rangeKey = (keyspace: KeyspaceName, from: string): PlacementKey =>
  `${keyspace}/range/${from}` as PlacementKey;
/** From parts that are known to be good, such as those of a parsed key. */
export const keyOfParts = (keyspace: KeyspaceName, kind: KeyKind, value: string): PlacementKey =>
  `${keyspace}/${kind}/${value}` as PlacementKey;

/**
 * The slot of a tenant: the first two bytes of its md5, masked.
 * The same expression is accepted in a PostgreSQL row filter; `hashtext(..) % n` would be negative
 * for half of the keys, so nothing else may compute a slot.
 */
export function slotOf(tenant: string, slotCount: number): number {
  return createHash("md5").update(tenant, "utf8").digest().readUInt16BE(0) & (slotCount - 1);
}

/** Standbys split a cell's keys by bucket, numbered below this. */
export const bucketCount = 256;

/**
 * The standby bucket of a key: all rows of a key lie in one bucket, so they are whole on one partner
 * (corrections A10). Tenants by the low bits of their slot expression; a slot by the same bits of its
 * number, so that overrides and their containers agree; in a keyspace of ranges, whose filters could
 * not stay as they are when ranges split, one bucket for all keys.
 */
export function bucketOf(
  key: KeyParts,
  keyspace: {
    readonly strategy: "directory" | "range" | "slots";
    readonly slotCount?: number | undefined;
  },
): number {
  if (keyspace.strategy === "range") return slotOf(key.keyspace, bucketCount);
  const count = bucketsOf(keyspace);
  return key.kind === "slot"
    ? key.slot & (count - 1)
    : slotOf(key.kind === "tenant" ? key.tenant : key.from, count);
}

/** Buckets that keys of a keyspace can lie in: fewer where slots are fewer. A power of two. */
export const bucketsOf = (keyspace: {
  readonly strategy: "directory" | "range" | "slots";
  readonly slotCount?: number | undefined;
}): number =>
  keyspace.strategy === "slots"
    ? Math.min(bucketCount, keyspace.slotCount ?? bucketCount)
    : bucketCount;

/** Byte order, as PostgreSQL's `COLLATE "C"` and as the bounds of ranges are compared. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, "utf8"), Buffer.from(b, "utf8"));
}

export function parsePlacementKey(raw: string): KeyParts | undefined {
  const [keyspaceRaw, kind, ...rest] = raw.split("/");
  const value = rest.join("/");
  const keyspace = parseKeyspaceName(keyspaceRaw ?? "");
  if (keyspace === undefined || rest.length !== 1) return undefined;
  if (kind === "slot") return slotParts(keyspace, value);
  if (kind === "range") {
    return value === "" || parseTenantId(value) !== undefined
      ? { keyspace, kind, from: value }
      : undefined;
  }
  const tenant = parseTenantId(value);
  return kind === "tenant" && tenant !== undefined ? { keyspace, kind, tenant } : undefined;
}

function slotParts(keyspace: KeyspaceName, value: string): KeyParts | undefined {
  const slot = /^(0|[1-9]\d{0,4})$/.test(value) ? Number(value) : slotCountMax;
  return slot < slotCountMax ? { keyspace, kind: "slot", slot } : undefined;
}

export const placementKeySchema = z
  .string()
  .max(256)
  .transform((raw, context): PlacementKey => {
    if (parsePlacementKey(raw) !== undefined) return raw as PlacementKey;
    context.addIssue({
      code: "custom",
      message: "must be KEYSPACE/tenant/ID, KEYSPACE/slot/N or KEYSPACE/range/FROM",
    });
    return z.NEVER;
  });
