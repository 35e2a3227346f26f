/**
 * Judges rows that only a returned cell has: what their changes come to, and how they stand to what the
 * tenant's home has now.
 *
 * What must always be true: nothing is called `free` that would overwrite or remove anything. Whoever
 * applies looks again, in the transaction that writes.
 */
import type { SalvageVerdict } from "../../../contract/salvage-api.ts";

export type ChangeKind = "insert" | "update" | "delete";
export type RowValues = Readonly<Record<string, string | null>>;

/** One change that the lost cell committed and nobody else saw (standby/ports.ts). */
export type LostChange = {
  readonly store: string;
  readonly table: string;
  /** Empty: the table is everybody's. */
  readonly keyspace: string;
  readonly kind: ChangeKind;
  readonly tenant: string;
  readonly key: RowValues;
  readonly row: RowValues | null;
  readonly lsn: string;
  readonly committedAt: string;
};

/** Of the first and the last of a row's changes; undefined: it came and went, and nobody misses it. */
export function effectOf(first: ChangeKind, last: ChangeKind): ChangeKind | undefined {
  if (last === "delete") return first === "insert" ? undefined : "delete";
  return first === "insert" ? "insert" : "update";
}

/** `theirs`: columns of the salvaged row, as the home has them; undefined: it has no such row. */
export function judge(
  kind: ChangeKind,
  row: RowValues | null,
  theirs: RowValues | undefined,
): SalvageVerdict {
  if (kind === "delete") return theirs === undefined ? "same" : "conflict";
  if (theirs === undefined) return kind === "insert" ? "free" : "conflict";
  return isSame(row ?? {}, theirs) ? "same" : "conflict";
}

const isSame = (row: RowValues, theirs: RowValues): boolean =>
  Object.entries(row).every(([column, value]) => theirs[column] === value);

/** Failover's steps from which on nothing is adopted any more that a salvage could collide with. */
const settled: ReadonlySet<string> = new Set(["verifying", "reprotecting", "done"]);
export const canSalvage = (step: string): boolean => settled.has(step);

/** Its keys are with other cells, and routers know: only then may its data be destroyed. */
export const canWipe = (step: string): boolean => step === "reprotecting" || step === "done";
