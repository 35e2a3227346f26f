/** What a move's calls into databases need to know and the move itself does not say. */
import { and, eq, inArray, sql } from "drizzle-orm";
import type { z } from "zod";
import type { Cell } from "../../../contract/control-api.ts";
import type { Epoch, KeyspaceName, TenantId } from "../../../contract/ids.ts";
import { epochSchema, parseTenantId } from "../../../contract/ids.ts";
import {
  compareBytes,
  type PlacementKey,
  parsePlacementKey,
  placementKeySchema,
  slotOf,
} from "../../../contract/placement-key.ts";
import { type RoutedKeyspace, routedKeyspaceSchema } from "../../../contract/routing-table.ts";
import type { Reader } from "../database.ts";
import { cellStores } from "../fleet-store.ts";
import { requireKeyspace } from "../keyspaces.ts";
import { placement } from "../schema.ts";

export type KeyBounds = {
  readonly key: PlacementKey;
  /** Of a range: where the next one begins; null: it is the last, or no range. */
  readonly until: string | null;
  /** Tenants that stand above this container. */
  readonly overrides: readonly TenantId[];
};

export type TaskFacts = {
  readonly keyspace: RoutedKeyspace;
  readonly bounds: readonly KeyBounds[];
  readonly sourceStores: Cell["stores"];
  readonly targetStores: Cell["stores"];
};

/** Throws KEYSPACE_UNKNOWN. */
export async function readTaskFacts(
  reader: Reader,
  about: {
    readonly keyspace: KeyspaceName;
    readonly keys: readonly PlacementKey[];
    readonly source: string;
    readonly target: string;
  },
): Promise<TaskFacts> {
  const { name, strategy, slotCount, guardMode } = await requireKeyspace(reader, about.keyspace);
  const keyspace = routedKeyspaceSchema.parse({
    ...{ name, strategy, guardMode },
    ...(slotCount === null ? {} : { slotCount }),
  } satisfies z.input<typeof routedKeyspaceSchema>);
  const overrides = strategy === "directory" ? [] : await overridesOf(reader, about.keyspace);
  return {
    keyspace,
    bounds: await Promise.all(about.keys.map((key) => boundsOf(reader, keyspace, key, overrides))),
    sourceStores: await cellStores(reader, about.source),
    targetStores: await cellStores(reader, about.target),
  };
}

/** Of keys that are placed, as they stand now: what a move of them would begin with. */
export async function readEpochs(
  reader: Reader,
  keys: readonly PlacementKey[],
): Promise<ReadonlyMap<PlacementKey, Epoch>> {
  const rows = await reader
    .select({ key: placement.key, epoch: placement.epoch })
    .from(placement)
    .where(inArray(placement.key, [...keys]));
  return new Map(
    rows.map(({ key, epoch }) => [placementKeySchema.parse(key), epochSchema.parse(epoch)]),
  );
}

async function overridesOf(reader: Reader, keyspace: string): Promise<TenantId[]> {
  const rows = await reader
    .select({ value: placement.value })
    .from(placement)
    .where(
      and(
        eq(placement.keyspace, keyspace),
        eq(placement.kind, "tenant"),
        eq(placement.deleted, false),
      ),
    )
    .orderBy(sql`${placement.value} collate "C"`);
  return rows.flatMap(({ value }) => parseTenantId(value) ?? []);
}

async function boundsOf(
  reader: Reader,
  keyspace: RoutedKeyspace,
  key: PlacementKey,
  all: readonly TenantId[],
): Promise<KeyBounds> {
  const parts = parsePlacementKey(key);
  if (parts?.kind === "slot") {
    const here = all.filter((tenant) => slotOf(tenant, keyspace.slotCount ?? 1) === parts.slot);
    return { key, until: null, overrides: here };
  }
  if (parts?.kind !== "range") return { key, until: null, overrides: [] };
  const until = await nextRange(reader, keyspace.name, parts.from);
  const isIn = (tenant: string) =>
    compareBytes(tenant, parts.from) >= 0 && (until === null || compareBytes(tenant, until) < 0);
  return { key, until, overrides: all.filter(isIn) };
}

async function nextRange(reader: Reader, keyspace: string, from: string): Promise<string | null> {
  const [row] = await reader
    .select({ value: placement.value })
    .from(placement)
    .where(
      and(
        eq(placement.keyspace, keyspace),
        eq(placement.kind, "range"),
        eq(placement.deleted, false),
        sql`${placement.value} collate "C" > ${from} collate "C"`,
      ),
    )
    .orderBy(sql`${placement.value} collate "C"`)
    .limit(1);
  return row?.value ?? null;
}
