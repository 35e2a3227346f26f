/**
 * What the checker remembers of a history while it is fed: per write its fate so far, per process what it
 * waits for, and what was found wrong at once.
 */
import { createEffects, type Effects } from "./check-effects.ts";
import { createLists, type Finding, type Lists } from "./check-lists.ts";
import type { RegisterOp } from "./check-registers.ts";
import { createWriters, type Writers } from "./check-writers.ts";
import type { Violation, ViolationKind } from "./model.ts";

export type Outcome = "open" | "ok" | "fail" | "info";
export type Write = {
  readonly tenant: string;
  readonly value: string;
  readonly sentAt: number;
  outcome: Outcome;
  presentCount: number;
  commitCount: number;
  /** A read of the list has shown it. */
  shown: boolean;
};

/** What a process waits for. */
export type Open = {
  readonly tenant: string;
  /** The highest epoch answered under for the tenant when this was sent. */
  readonly floor: number;
  readonly what:
    | { readonly kind: "write"; readonly write: Write }
    | { readonly kind: "list" }
    | { readonly kind: "register"; readonly index: number; readonly ops: RegisterOp[] };
};

export type Register = {
  readonly tenant: string;
  readonly name: string;
  readonly ops: RegisterOp[];
};

export type State = {
  readonly writes: Map<string, Write>;
  readonly open: Map<string, Open>;
  readonly refs: Map<string, string>;
  readonly readTenants: Set<string>;
  readonly reportedLost: Set<string>;
  /** Of tenants that nobody serves, by a report. */
  readonly unavailable: Set<string>;
  readonly salvaged: Set<string>;
  readonly writers: Writers;
  readonly lists: Lists;
  readonly effects: Effects;
  readonly registers: Map<string, Register>;
  readonly found: Violation[];
  readonly findings: Finding[];
  readonly registerStepsMax: number | undefined;
  listCount: number;
  present: number;
  commits: number;
  lastAt: number;
};

export function createState(registerStepsMax: number | undefined): State {
  return {
    writes: new Map(),
    open: new Map(),
    refs: new Map(),
    readTenants: new Set(),
    reportedLost: new Set(),
    unavailable: new Set(),
    salvaged: new Set(),
    writers: createWriters(),
    lists: createLists(),
    effects: createEffects(),
    registers: new Map(),
    found: [],
    findings: [],
    registerStepsMax: registerStepsMax,
    listCount: 0,
    present: 0,
    commits: 0,
    lastAt: Number.NEGATIVE_INFINITY,
  };
}

export function report(
  state: State,
  kind: ViolationKind,
  tenant: string,
  value: string,
  text: string,
): void {
  state.found.push({ kind, tenant, value, text });
}
