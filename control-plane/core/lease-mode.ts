/**
 * How the leases of a cell end, as the control plane counts it (contract/lease-mode.ts). Pure.
 *
 * What must always be true: a cell counts as manual from the moment that somebody wants it so, and until
 * its database has acknowledged the word that says otherwise; what a database knows by a later number is
 * stronger than what is written here, which may have been restored from before it.
 */
import { type LeaseMode, type LeaseModeWord, manualLeaseMsMax } from "../../contract/lease-mode.ts";

export type LeaseModeView = {
  readonly mode: LeaseMode;
  /** Of the last change. */
  readonly number: number;
  /** The change that the cell's database has made; below 0: nobody knows any more. */
  readonly acked: number;
};

export const timedView: LeaseModeView = { mode: "timed", number: 0, acked: 0 };

export const isSettled = ({ number, acked }: LeaseModeView): boolean => acked === number;

/** Nobody may take over from it before an operator has said that it is powered off. */
export const countsAsManual = (view: LeaseModeView): boolean =>
  view.mode === "manual" || !isSettled(view);

/** A cell that renews its lease by itself needs no long one, and whoever takes over waits the last one out. */
export const grantedMs = (view: LeaseModeView, ttlMs: number): number =>
  countsAsManual(view) ? Math.min(ttlMs, manualLeaseMsMax) : ttlMs;

/** What is known after its agent has said what the database has. */
export function hearLeaseMode(known: LeaseModeView, said: LeaseModeWord): LeaseModeView {
  if (said.number > known.number) return { ...said, acked: said.number };
  // The same number of another history: said again, under a number of its own.
  if (said.number === known.number && said.mode !== known.mode) {
    return { ...known, number: known.number + 1, acked: said.number };
  }
  return { ...known, acked: said.number };
}

/** Undefined: it is so already, as far as anybody wants something. */
export const wantLeaseMode = (known: LeaseModeView, mode: LeaseMode): LeaseModeView | undefined =>
  known.mode === mode ? undefined : { ...known, mode, number: known.number + 1 };

export const whyManual = (view: LeaseModeView): string =>
  view.mode === "manual"
    ? "its leases are manual"
    : "it has not acknowledged yet that its leases are timed";
