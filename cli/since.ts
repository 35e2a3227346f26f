/** `--since`: a time that has passed, as how long ago or as when. */
import { usage } from "./failures.ts";
import { parseDuration } from "./render/units.ts";

/** Milliseconds since the epoch. */
export function parseSince(raw: string, nowMs: number): number {
  const ago = parseDuration(raw);
  if (ago !== undefined) return nowMs - ago;
  const at = /^\d{4}-\d{2}-\d{2}/.test(raw) ? Date.parse(raw) : Number.NaN;
  if (!Number.isNaN(at)) return at;
  throw usage(`--since "${raw}": must be a time such as 1h, or an ISO time`);
}
