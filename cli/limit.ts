/** `--limit`, where a list may be longer than anybody wants to read. */
import { usage } from "./failures.ts";
import { type Options, text } from "./grammar.ts";

/** Undefined means all. */
export function parseLimit(options: Options): number | undefined {
  const raw = text(options, "limit");
  if (raw === undefined) return undefined;
  const limit = Number(raw);
  if (Number.isSafeInteger(limit) && limit >= 1) return limit;
  throw usage(`--limit "${raw}": must be a number from 1`);
}
