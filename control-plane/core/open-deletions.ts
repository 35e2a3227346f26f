/**
 * What a cell that is to be destroyed still owes to deletions. Always true: a receipt says that rows are
 * gone only where a cell counted none, where a provider removed the storage, or on somebody's word.
 */
import type { CellView } from "./fleet.ts";
import type { Refusal } from "./safety.ts";

/** `deletions`: tenants whose deletion needs this cell's confirmation still. */
export function checkOwesNothing(
  cell: Pick<CellView, "id" | "provider">,
  deletions: readonly string[],
  storageRemoved: boolean,
): Refusal | undefined {
  const [first] = deletions;
  // A provider removes the storage, and the receipt says so.
  if (first === undefined || cell.provider !== "none" || storageRemoved) return undefined;
  const others = deletions.length > 1 ? ` and ${deletions.length - 1} more` : "";
  return {
    rule: "owes-nothing",
    text: `The deletion of ${first}${others} waits until ${cell.id} confirms that no row is left there. Nobody but you can remove its storage, so a receipt would not be true.`,
  };
}

export const owesSteps = (cell: string): string[] => [
  `start the agent of ${cell} again; it removes the rows and confirms`,
  `or drop its database by hand, then: cellctl cell destroy ${cell} --storage-removed   (the receipts name you)`,
];
