/**
 * Records what clients ask and are told. Every operation is written down before it is sent, and its outcome
 * when it is known; an operation without an outcome counts as unknown.
 */
import type { Clock } from "../runtime/clock.ts";
import { historyHead } from "./file.ts";
import type { Entry } from "./model.ts";

export type Recorded = {
  readonly ok: (by: {
    readonly cell: string;
    readonly epoch: number;
    readonly ref: string;
  }) => void;
  /** Certainly not done. */
  readonly fail: (reason: string) => void;
  /** May have been done. */
  readonly info: (reason: string) => void;
};

export type Recorder = {
  /** One process has one operation at a time. */
  readonly invoke: (write: {
    readonly process: string;
    readonly tenant: string;
    readonly value: string;
  }) => Recorded;
  /** What is known without having been asked for: what was found, committed, owned. */
  readonly note: (entry: Entry) => void;
};

const reasonCharactersMax = 200;

export function createRecorder(options: {
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly run: string;
  /** Called in order, one entry at a time. */
  readonly write: (entry: Entry) => void;
}): Recorder {
  const { clock, write } = options;
  write(historyHead(options.run));
  return {
    invoke: ({ process, tenant, value }) => {
      write({ kind: "invoke", at: clock.monotonicMs(), process, tenant, value });
      const end = (kind: "fail" | "info", reason: string) =>
        write({
          kind,
          at: clock.monotonicMs(),
          process,
          reason: reason.slice(0, reasonCharactersMax),
        });
      return {
        ok: (by) => write({ kind: "ok", at: clock.monotonicMs(), process, ...by }),
        fail: (reason) => end("fail", reason),
        info: (reason) => end("info", reason),
      };
    },
    note: write,
  };
}
