/** `--size` and `--rps`: what a tenant is declared to need, now or in a question of what if. */
import { usage } from "./failures.ts";
import { type Options, text } from "./grammar.ts";
import { parseSize } from "./render/units.ts";

export type DeclaredSize = { readonly bytes?: number; readonly rps?: number };

export const sizeOf = (options: Options): DeclaredSize => ({
  ...bytesOf(text(options, "size")),
  ...rpsOf(text(options, "rps")),
});

function bytesOf(raw: string | undefined): DeclaredSize {
  if (raw === undefined) return {};
  const bytes = parseSize(raw);
  if (bytes !== undefined) return { bytes };
  throw usage(`--size "${raw}": must be a number of bytes such as 500MB or 2GiB`);
}

function rpsOf(raw: string | undefined): DeclaredSize {
  if (raw === undefined) return {};
  const rps = Number(raw);
  if (raw.trim() !== "" && Number.isFinite(rps) && rps >= 0) return { rps };
  throw usage(`--rps "${raw}": must be a number from 0`);
}
