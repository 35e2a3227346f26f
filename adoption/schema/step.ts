/**
 * A plan is data: what `--dry-run` prints, what the progress shows and what the executor runs are
 * the same steps.
 */

/**
 * How a step meets the application's queries.
 * `locked`: one short transaction that holds the table alone; it asks with a lock_timeout, again and
 * again, because while it waits every later query of the table waits behind it.
 * `concurrent`: long, and queries go on beside it; runs outside a transaction.
 * `batches`: many short transactions, each over few rows.
 * `ours`: touches nothing of the application.
 */
export type StepWay = "locked" | "concurrent" | "batches" | "ours";

export const stepKinds = [
  "install-pack",
  "record-manifest",
  "add-key-column",
  "backfill",
  "key-not-null-check",
  "key-not-null-validate",
  "key-not-null",
  "drop-invalid-index",
  "identity-index",
  "replica-identity",
  "unique-index",
  "unique-swap",
  "protect",
  "unprotect",
  "drop-added",
  "drop-pack",
] as const;
export type StepKind = (typeof stepKinds)[number];

export type Step = {
  /** Unique in its plan: `guard public.orders`. */
  readonly id: string;
  readonly kind: StepKind;
  /** The table, index or schema it is about. */
  readonly object: string;
  readonly way: StepWay;
  /** As PostgreSQL names it, with what it keeps waiting. */
  readonly lock: string;
  readonly why: string;
  /** How it is taken back. */
  readonly undo: string;
  /** In order. Of `locked` ones: one transaction. */
  readonly sql: readonly string[];
  /** `locked`: the table to be held, as SQL, before the first statement runs. */
  readonly hold?: string;
  readonly holdMode?: "share row exclusive" | "access exclusive";
  /** A query that must answer true before it may run. */
  readonly waitFor?: string;
  /** `batches`: what is filled. */
  readonly backfill?: Backfill;
};

export type Backfill = {
  readonly schema: string;
  readonly table: string;
  readonly keyColumn: string;
  readonly keyspace: string;
  readonly parent: { readonly schema: string; readonly table: string; readonly column: string };
  /** Pairs: this table's column, the parent's. */
  readonly on: readonly (readonly [string, string])[];
  readonly rowsEstimate: number;
  /** Rows may lead to no parent; they stay without a key, which is a finding of `schema check`. */
  readonly mayBeNull: boolean;
};

/** What a person has to decide; never run unless asked for by name. */
export type Advice = {
  readonly object: string;
  readonly text: string;
  readonly sql: readonly string[];
};

export type Plan = { readonly steps: readonly Step[]; readonly advice: readonly Advice[] };

/** Who stands in the way of a lock. */
export type Blocker = {
  readonly pid: number;
  readonly user: string;
  readonly application: string;
  readonly state: string;
  readonly transactionMs: number;
  readonly query: string;
};

export type StepEvent =
  | { readonly kind: "step.began"; readonly step: Step; readonly at: number; readonly of: number }
  | {
      readonly kind: "lock.tried";
      readonly step: string;
      readonly tries: number;
      readonly outcome: "got" | "timeout";
      /** As the client saw it: from sending to the answer. */
      readonly tookMs: number;
      /** As the server saw it; only of those that were got. */
      readonly waitedMs?: number;
      readonly heldMs?: number;
    }
  | {
      readonly kind: "lock.blocked";
      readonly step: string;
      readonly tries: number;
      readonly blockers: readonly Blocker[];
    }
  | {
      readonly kind: "step.progress";
      readonly step: string;
      readonly text: string;
      readonly done: number;
      readonly total: number;
      readonly etaMs: number | undefined;
    }
  | { readonly kind: "step.waiting"; readonly step: string; readonly text: string }
  | { readonly kind: "step.done"; readonly step: Step; readonly tookMs: number };
