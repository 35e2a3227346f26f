/**
 * Annexes: a cell's standby in one of its partners. An annex has a database of its own beside the
 * partner's (logical provider) or a server of its own (physical), an agent, and, once it serves, the
 * application's processes. To every machine of the fleet it is a cell (lease, ownership, endpoints,
 * recovery); to people it is a part of its host: `x-cell` and lists name the host.
 */
import { type CellId, parseCellId } from "./ids.ts";

/** No cell of an operator's may be named so. */
export const annexPrefix = "sb-";

export const isAnnexId = (id: string): boolean => id.startsWith(annexPrefix);

/**
 * Slot that a physical standby's server follows, in the origin's server. Two underscores: no name of a
 * stream, which is made of ids with dashes, comes out alike.
 */
export const serverSlot = (annex: string): string => `${annex.replaceAll("-", "_")}__server`;

/** Longest a cell id may be. */
const lengthMax = 40;

/**
 * `sb-cell-01-cell-02`, later ones of the same pair `sb-cell-01-cell-02-2`: an id is never used again, so
 * a successor can be built while its predecessor still serves. Long names are cut and told apart by
 * `mark` (hex, of both names).
 */
export function annexId(
  origin: CellId,
  host: CellId,
  generation: number,
  mark: (text: string) => string,
): CellId {
  const tail = generation > 1 ? `-${generation}` : "";
  const whole = `${annexPrefix}${origin}-${host}${tail}`;
  const short = `${annexPrefix}${mark(`${origin}\n${host}`).slice(0, 16)}${tail}`;
  const id = parseCellId(whole.length <= lengthMax ? whole : short);
  if (id === undefined) throw new Error(`no annex id for ${origin} in ${host}`);
  return id;
}
