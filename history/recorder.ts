/**
 * Records what clients ask and are told. Every operation is written down before it is sent, and its outcome
 * when it is known; an operation without an outcome counts as unknown.
 */
import type { Clock } from "../runtime/clock.ts";
import { historyHead } from "./file.ts";
import type { Entry, EntryOf } from "./model.ts";

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

type Unanswered = Pick<Recorded, "fail" | "info">;
type Answered<Kind extends Entry["kind"]> = (
  by: Omit<EntryOf<Kind>, "kind" | "at" | "process">,
) => void;
export type RecordedList = Unanswered & { readonly listed: Answered<"listed"> };
export type RecordedRegister = Unanswered & { readonly found: Answered<"found"> };
type Asked<Kind extends Entry["kind"]> = Omit<EntryOf<Kind>, "kind" | "at">;

/** One process has one operation at a time. */
export type Recorder = {
  readonly invoke: (write: {
    readonly process: string;
    readonly tenant: string;
    readonly value: string;
  }) => Recorded;
  readonly list: (read: Asked<"list">) => RecordedList;
  readonly swap: (swap: Asked<"swap">) => RecordedRegister;
  readonly look: (look: Asked<"look">) => RecordedRegister;
  /** A receiver outside of all cells has done what a message asks for. */
  readonly effect: (effect: Asked<"effect">) => void;
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
  const now = () => clock.monotonicMs();
  const unanswered = (process: string): Unanswered => {
    const end = (kind: "fail" | "info", reason: string) =>
      write({ kind, at: now(), process, reason: reason.slice(0, reasonCharactersMax) });
    return { fail: (reason) => end("fail", reason), info: (reason) => end("info", reason) };
  };
  const register = (process: string): RecordedRegister => ({
    ...unanswered(process),
    found: (by) => write({ kind: "found", at: now(), process, ...by }),
  });
  return {
    invoke: ({ process, tenant, value }) => {
      write({ kind: "invoke", at: now(), process, tenant, value });
      return {
        ...unanswered(process),
        ok: (by) => write({ kind: "ok", at: now(), process, ...by }),
      };
    },
    list: (read) => {
      write({ kind: "list", at: now(), ...read });
      return {
        ...unanswered(read.process),
        listed: (by) => write({ kind: "listed", at: now(), process: read.process, ...by }),
      };
    },
    swap: (swap) => {
      write({ kind: "swap", at: now(), ...swap });
      return register(swap.process);
    },
    look: (look) => {
      write({ kind: "look", at: now(), ...look });
      return register(look.process);
    },
    effect: (effect) => write({ kind: "effect", at: now(), ...effect }),
    note: write,
  };
}
