/**
 * Ownership of placement keys in one cell's database: apply what the control plane says, read it
 * back, hear of changes.
 *
 * Applying is idempotent and ordered by the database itself (see cell/sql/060-ownership.sql): what is
 * older than what stands is refused, never written. `appliedRevision` advances only when every change
 * up to it was applied or refused for a reason.
 */
import { z } from "zod";
import type { OwnershipChange } from "../../contract/cell-protocol.ts";
import { ownershipStates } from "../../contract/cell-protocol.ts";
import type { Queryable } from "./queryable.ts";
import { sqlStateOf } from "./queryable.ts";

const outcomeSchema = z.object({
  key: z.string(),
  /** `same`: stood already. `refused`: something newer stands, and is told here. */
  outcome: z.enum(["applied", "same", "refused"]),
  state: z.enum(ownershipStates),
  epoch: z.number(),
  op: z.string(),
  attempt: z.number(),
});
export type ChangeOutcome = z.infer<typeof outcomeSchema>;

export type ApplyResult = {
  readonly outcomes: readonly ChangeOutcome[];
  /** Keys whose writers were not done within the lock timeout: unchanged, apply again. */
  readonly busy: readonly string[];
};

export type ApplyOptions = {
  /** In order of revision. */
  readonly changes: readonly OwnershipChange[];
  /** Everything up to it is in `changes`, or was applied before. */
  readonly revision: number;
  /** How long to wait for writers of a key that stops being active. Default 50. */
  readonly lockTimeoutMs?: number;
};

/** Larger calls are cut into several. */
const changesPerCallMax = 10_000;
/** A writer holds the key; too many keys to lock in one call. */
const lockNotAvailable = "55P03";
const programLimitExceeded = "54000";

/**
 * Applies changes, cutting a call in halves when a writer stands in its way, so that one busy key
 * delays no other. The revision is stored only if nothing was busy.
 */
export async function applyOwnership(
  client: Queryable,
  options: ApplyOptions,
): Promise<ApplyResult> {
  const lockTimeoutMs = options.lockTimeoutMs ?? 50;
  const outcomes: ChangeOutcome[] = [];
  const busy: string[] = [];
  const parts = cut(options.changes);
  let stored = false;

  async function applyPart(part: readonly OwnershipChange[], whole: boolean): Promise<void> {
    try {
      const revision = whole ? options.revision : null;
      outcomes.push(...(await callApply(client, part, revision, lockTimeoutMs)));
      stored = whole;
    } catch (error) {
      const code = sqlStateOf(error);
      if (code !== lockNotAvailable && code !== programLimitExceeded) throw error;
      const [first] = part;
      if (part.length === 1 && first !== undefined) {
        busy.push(first.key);
        return;
      }
      const middle = Math.ceil(part.length / 2);
      await applyPart(part.slice(0, middle), false);
      await applyPart(part.slice(middle), false);
    }
  }

  for (const part of parts) await applyPart(part, parts.length === 1);
  // By itself when it took several calls, or none.
  if (busy.length === 0 && !stored) await callApply(client, [], options.revision, lockTimeoutMs);
  return { outcomes, busy };
}

/** Parts in which no key stands twice, in order. */
function cut(changes: readonly OwnershipChange[]): OwnershipChange[][] {
  const parts: OwnershipChange[][] = [];
  let seen = new Set<string>();
  for (const change of changes) {
    let part = parts.at(-1);
    if (part === undefined || seen.has(change.key) || part.length >= changesPerCallMax) {
      part = [];
      parts.push(part);
      seen = new Set();
    }
    part.push(change);
    seen.add(change.key);
  }
  return parts;
}

async function callApply(
  client: Queryable,
  changes: readonly OwnershipChange[],
  revision: number | null,
  lockTimeoutMs: number,
): Promise<ChangeOutcome[]> {
  const { rows } = await client.query<{ outcome: unknown }>(
    "select to_jsonb(a) as outcome from cellfleet.apply_ownership($1, $2, $3) a",
    [JSON.stringify(changes), revision, lockTimeoutMs],
  );
  return rows.map((row) => outcomeSchema.parse(row.outcome));
}

export type KeyspaceInCell = {
  readonly name: string;
  readonly strategy: "directory" | "range" | "slots";
  readonly slotCount?: number | undefined;
  readonly guardMode: "row" | "strict";
  /**
   * Strategy range: where the ranges of all cells begin. Absent: what is known stays. Without them a
   * cell takes its own last range to reach to the end of the alphabet.
   */
  readonly ranges?: readonly string[] | undefined;
};

/** Idempotent. Throws 55000 if the strategy of a keyspace that owns keys would change. */
export async function applyKeyspaces(
  client: Queryable,
  keyspaces: readonly KeyspaceInCell[],
  lockTimeoutMs = 50,
): Promise<void> {
  await client.query("select cellfleet.set_keyspaces($1, $2)", [
    JSON.stringify(keyspaces),
    lockTimeoutMs,
  ]);
}

const ownedSchema = z.object({
  key: z.string(),
  state: z.enum(ownershipStates),
  epoch: z.number(),
  revision: z.number(),
  /** Grows with every applied call; the cursor of `ownershipSince`. */
  change: z.number(),
});
export type OwnedKey = z.infer<typeof ownedSchema>;

const ownedColumns = `jsonb_build_object('key', key, 'state', state, 'epoch', epoch,
  'revision', revision, 'change', change) as owned`;

/** A page of all keys, in key order (byte order), after `afterKey` (`""`: from the start). */
export async function listOwnership(
  client: Queryable,
  afterKey: string,
  limit: number,
): Promise<OwnedKey[]> {
  const { rows } = await client.query<{ owned: unknown }>(
    `select ${ownedColumns} from cellfleet.ownership where key > $1 collate "C" order by key limit $2`,
    [afterKey, limit],
  );
  return rows.map((row) => ownedSchema.parse(row.owned));
}

/** All keys that changed after the given change number. */
export async function ownershipSince(client: Queryable, change: number): Promise<OwnedKey[]> {
  const { rows } = await client.query<{ owned: unknown }>(
    `select ${ownedColumns} from cellfleet.ownership where change > $1 order by change`,
    [change],
  );
  return rows.map((row) => ownedSchema.parse(row.owned));
}
