/**
 * What a history is made of: what clients asked and were told, what the cells' databases say was
 * committed, and what is there in the end. One entry per line of a history file, in order of time.
 *
 * Operations follow Jepsen's words: `invoke`, then exactly one of `ok` (acknowledged), `fail` (certainly not
 * done) or `info` (unknown: it may take effect at any time after the invoke, or never). Reads of lists and
 * operations on registers have a beginning and an answer of their own, and share `fail` and `info`.
 */
import { z } from "zod";

const id = z.string().min(1).max(200);
const epoch = z.number().int().min(1);
/** Milliseconds on the recorder's monotonic clock. */
const at = z.number();

export const entrySchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("head"),
    format: z.literal("cellfleet.history"),
    /** 1 knows writes alone; 2 also `list`, `swap`, `look` with their answers, `effect` and `settled`. */
    version: z.union([z.literal(1), z.literal(2)]),
    run: id,
  }),
  /** A write is sent. `value` is unique in the whole history: it is what is looked for later. */
  z.strictObject({ kind: z.literal("invoke"), at, process: id, tenant: id, value: id }),
  z.strictObject({
    kind: z.literal("ok"),
    at,
    process: id,
    /** Who acknowledged, under which epoch, as the router's answer said. */
    cell: id,
    epoch,
    /** The id that the application gave to what was written; unique over all cells. */
    ref: id,
  }),
  z.strictObject({ kind: z.literal("fail"), at, process: id, reason: z.string().max(200) }),
  z.strictObject({ kind: z.literal("info"), at, process: id, reason: z.string().max(200) }),
  /** The tenant's list is asked for, or its newest part. */
  z.strictObject({ kind: z.literal("list"), at, process: id, tenant: id }),
  z.strictObject({
    kind: z.literal("listed"),
    at,
    process: id,
    cell: id,
    epoch,
    /** The answer shows every item whose ref, a whole number, is at least this; null: the whole list. */
    from: z.number().int().min(0).nullable(),
    seen: z.array(z.strictObject({ value: id, ref: id })),
  }),
  /** Compare and set: `register` of the tenant becomes `value` if it is `expected` (null: never set). */
  z.strictObject({
    kind: z.literal("swap"),
    at,
    process: id,
    tenant: id,
    register: id,
    expected: id.nullable(),
    value: id,
  }),
  z.strictObject({ kind: z.literal("look"), at, process: id, tenant: id, register: id }),
  /** What a `swap` or `look` found there. A swap took effect exactly when it found what it expected. */
  z.strictObject({
    kind: z.literal("found"),
    at,
    process: id,
    cell: id,
    epoch,
    value: id.nullable(),
  }),
  /** A receiver outside of all cells did what message `id` about the write `value` asks for. */
  z.strictObject({ kind: z.literal("effect"), at, tenant: id, id, value: id }),
  /** In the end: no message of the tenant waits any more, so every write has had its effect. */
  z.strictObject({ kind: z.literal("settled"), tenant: id }),
  /** In the end: a value found when the tenant was read through a router. */
  z.strictObject({ kind: z.literal("present"), tenant: id, value: id, cell: id, ref: id }),
  /** In the end: the tenant was read to its last page. */
  z.strictObject({ kind: z.literal("read"), tenant: id }),
  /** A row of a cell's commit log: a transaction of this cell wrote `value` and committed. */
  z.strictObject({
    kind: z.literal("commit"),
    cell: id,
    tenant: id,
    /** 0: the cell's database knows no owner of the tenant at all. */
    epoch: z.number().int().min(0),
    txid: id,
    value: id,
    /** When it committed, by that database's own clock; ISO 8601. */
    committedAt: z.string().max(40),
  }),
  /** The control plane gave the tenant to this cell; in order of `revision`. */
  z.strictObject({
    kind: z.literal("owner"),
    tenant: id,
    cell: id,
    epoch,
    revision: z.number().int().min(0),
  }),
  /** An RPO report names this acknowledged write as lost. */
  z.strictObject({ kind: z.literal("reported-lost"), tenant: id, value: id }),
  /** An RPO report says that nobody serves the tenant: what is there cannot be looked at. */
  z.strictObject({ kind: z.literal("unavailable"), tenant: id }),
  /** A salvage file of a returned cell holds this commit. */
  z.strictObject({ kind: z.literal("salvaged"), tenant: id, cell: id, value: id }),
]);
export type Entry = z.infer<typeof entrySchema>;
export type EntryOf<Kind extends Entry["kind"]> = Extract<Entry, { kind: Kind }>;

export const violationKinds = [
  "lost",
  "duplicate",
  "resurrected",
  "phantom",
  "foreign",
  "id-collision",
  "two-writers",
  "not-the-owner",
  "ack-order",
  "epoch-fell",
  "stale-read",
  "went-back",
  "forked-read",
  "not-linearizable",
  "effect-twice",
  "effect-missing",
  /** Too large to judge within the checker's bounds: nobody knows, so it is not green. */
  "undecided",
  "unread",
  "malformed",
  "vacuous",
] as const;
export type ViolationKind = (typeof violationKinds)[number];

export type Violation = {
  readonly kind: ViolationKind;
  /** The tenant and the write it is about; empty where it is about the history as a whole. */
  readonly tenant: string;
  readonly value: string;
  /** One sentence for a person. */
  readonly text: string;
};

export type Verdict = {
  readonly ok: boolean;
  readonly violations: readonly Violation[];
  readonly counts: {
    readonly invoked: number;
    readonly acknowledged: number;
    readonly failed: number;
    /** `info`, and writes that never got an answer. Counts up to here are of writes alone. */
    readonly unknown: number;
    readonly present: number;
    readonly commits: number;
    /** Acknowledged, missing, and named by an RPO report. */
    readonly reportedLost: number;
    /** Named by an RPO report although they are there. */
    readonly falseAlarms: number;
    /** Answered reads of lists. */
    readonly lists: number;
    /** Answered operations on registers. */
    readonly registers: number;
    readonly effects: number;
  };
};
