/** From where to where: an end that is a standby is named by the cell that it stands in. */
import type { Move } from "../../contract/move-api.ts";

type Ends = Pick<Move, "source" | "target" | "sourceAnnex" | "targetAnnex">;

const named = (cell: string, annex: Ends["sourceAnnex"]): string =>
  annex === undefined ? cell : `${cell} (standby of ${annex.origin})`;

export const sourceOf = ({ source, sourceAnnex }: Ends): string => named(source, sourceAnnex);
export const targetOf = ({ target, targetAnnex }: Ends): string => named(target, targetAnnex);
export const wayOf = (ends: Ends): string => `${sourceOf(ends)} -> ${targetOf(ends)}`;
