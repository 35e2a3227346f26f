/**
 * What the machine API asks of the publisher. A type only: the API may not know the loops, the
 * process that assembles both hands one to the other.
 */

import type { RouterSyncResponse } from "../../contract/cell-protocol.ts";
import type { Revision } from "../../contract/ids.ts";

export type TableSnapshot = {
  readonly revision: Revision;
  /** The NDJSON text, in pieces that are shared by all readers. */
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
};

export type RoutingFeed = {
  readonly fleet: () => string;
  /** Of the table in memory; 0 before the first reading. */
  readonly revision: () => number;
  readonly epochMax: () => number;
  /** False until the log has been read once. */
  readonly isReady: () => boolean;
  /** What a router that serves `revision` must be told now. */
  readonly answerTo: (revision: number, checksum: string) => RouterSyncResponse["answer"];
  readonly snapshot: () => Promise<TableSnapshot>;
  /** Resolves after the next reading of the log that found something, after `ms`, or when aborted. */
  readonly changed: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Reads the log now, instead of at the next notification. */
  readonly refresh: () => Promise<void>;
};
