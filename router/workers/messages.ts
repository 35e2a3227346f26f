/**
 * What the main thread and its workers say to each other: every message, closed, both ways. Both sides
 * are one release of ours in one process, so bodies are taken at their word; what is no message at all
 * throws where it arrives, because nobody else may post here.
 */
import type { ErrorCode } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import type { RememberedAnswer } from "../../contract/remembered-request.ts";
import type { DeltaBody } from "../../contract/routing-table.ts";
import type { ServedCount } from "../../contract/served-counts.ts";
import type { SharedTable } from "../../contract/shared-table.ts";
import type { MetricsDump } from "../../runtime/metrics.ts";
import type { AckedList } from "../acked/acked-writes.ts";
import type { FreshSeen } from "../cells/cell-tally.ts";
import type { RouterConfig } from "../config.ts";
import type { ListenerSockets } from "../listen/open-listeners.ts";
import type { RoutingView } from "../place/decide.ts";

/** What a worker is born with. */
export type WorkerStart = {
  /** Of the main thread: a worker reads its code from disk, which may have been replaced since. */
  readonly release: string;
  /** Its share of the totals: see share.ts. */
  readonly config: RouterConfig;
};

export type SharedView = {
  readonly table: SharedTable;
  readonly protocol: RoutingView["protocol"];
  readonly passThrough: CellId | undefined;
};

export type Counts = {
  readonly seen: readonly FreshSeen[];
  /** How requests ended, since the last message of this kind. */
  readonly served: readonly ServedCount[];
  /** By code, since the last message of this kind. */
  readonly wouldRefuse: Readonly<Record<string, number>>;
  /** The control plane should hear it soon. */
  readonly isNews: boolean;
};

export type AckedLists = ReadonlyArray<readonly [CellId, AckedList]>;

export type WorkerFailure = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly nextSteps: readonly string[];
};

/** `table` and `delta` are answered with `serves`, in their order. */
export type ToWorker =
  | { readonly kind: "table"; readonly view: SharedView }
  | { readonly kind: "delta"; readonly body: DeltaBody }
  | { readonly kind: "open"; readonly doors: ListenerSockets }
  /** A successor is ready: give the listening sockets away, connections stay. */
  | { readonly kind: "hand-over" }
  /** Finish what is in flight; answered with `drained`. */
  | { readonly kind: "drain" }
  /** What is still open is cut. */
  | { readonly kind: "hurry" }
  /** The operator changed files of certificates. */
  | { readonly kind: "reload" }
  | { readonly kind: "count"; readonly question: number }
  | { readonly kind: "find"; readonly question: number; readonly requestId: string }
  /** What was acknowledged for this cell? */
  | { readonly kind: "acks"; readonly question: number; readonly cell: CellId };

export type FromWorker =
  | { readonly kind: "ready" }
  /** It cannot work with its settings, and ends. */
  | { readonly kind: "failed"; readonly error: WorkerFailure }
  | { readonly kind: "serves"; readonly revision: number }
  /** It serves on from what it had, and must be given a whole table. */
  | { readonly kind: "refused"; readonly text: string }
  | { readonly kind: "opened" }
  | { readonly kind: "handed-over"; readonly doors: ListenerSockets }
  | {
      readonly kind: "drained";
      readonly metrics: MetricsDump;
      /** For the main thread to keep. */
      readonly acked: AckedLists;
    }
  | { readonly kind: "counted"; readonly question: number; readonly metrics: MetricsDump }
  | { readonly kind: "found"; readonly question: number; readonly answer: RememberedAnswer }
  | { readonly kind: "acked"; readonly question: number; readonly list: AckedList }
  | { readonly kind: "seen"; readonly counts: Counts }
  /** The table seems to be old. */
  | { readonly kind: "doubt" }
  /** Whole lines of the log. */
  | { readonly kind: "log"; readonly lines: string };

const toWorkerKinds: readonly ToWorker["kind"][] = [
  ...(["table", "delta", "open", "hand-over", "drain", "hurry", "reload"] as const),
  ...(["count", "find", "acks"] as const),
];
const fromWorkerKinds: readonly FromWorker["kind"][] = [
  ...(["ready", "failed", "serves", "refused", "opened", "handed-over", "drained"] as const),
  ...(["counted", "found", "acked", "seen", "doubt", "log"] as const),
];

/** Throws for what is no message. */
export const readToWorker = (value: unknown): ToWorker => read<ToWorker>(value, toWorkerKinds);
export const readFromWorker = (value: unknown): FromWorker =>
  read<FromWorker>(value, fromWorkerKinds);

function read<Message>(value: unknown, kinds: readonly string[]): Message {
  const kind: unknown =
    typeof value === "object" && value !== null && "kind" in value ? value.kind : undefined;
  if (typeof kind === "string" && kinds.includes(kind)) return value as Message;
  throw new Error(`no message between threads: ${String(kind)}`);
}
