/** A cell by its id, or CELL_UNKNOWN with the nearest ids. */
import { CellError } from "../../contract/errors.ts";
import { didYouMean } from "../core/did-you-mean.ts";
import type { CellView } from "../core/fleet.ts";
import type { Reader } from "../store/database.ts";
import { cellIds, readCell } from "../store/fleet-store.ts";

export async function requireCell(reader: Reader, id: string): Promise<CellView> {
  const cell = await readCell(reader, id);
  if (cell !== undefined) return cell;
  const near = didYouMean(id, await cellIds(reader));
  throw new CellError("CELL_UNKNOWN", `There is no cell ${id}.`, {
    nextSteps: [...near.map((other) => `Did you mean ${other}?`), "cellctl cell ls"],
  });
}
