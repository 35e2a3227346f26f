/**
 * Pure: which requests are worth a line. What did not go well always is, unless nothing is logged;
 * what went well may be sampled.
 */
export const accessLogModes = ["on", "off", "errors"] as const;
export type AccessLogPolicy = {
  readonly mode: (typeof accessLogModes)[number];
  /** Share of the requests below 400 that ended well, 0 to 1. */
  readonly share: number;
};

/** `chance` is asked only where it decides. */
export function wantsLine(
  { mode, share }: AccessLogPolicy,
  { status, flag }: { readonly status: number; readonly flag: string },
  chance: () => number,
): boolean {
  if (mode === "off") return false;
  if (status === 0 || status >= 400 || flag !== "ok") return true;
  return mode === "on" && (share >= 1 || chance() < share);
}
