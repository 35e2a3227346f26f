/** How the end of a tenant looks to people: the receipt of its deletion, with exact numbers: it is evidence. */
import type { Receipt } from "../../contract/adoption-api.ts";
import type { View } from "./output.ts";
import { counted } from "./units.ts";

const removed = (rows: Receipt["cells"][number]["rows"]): number =>
  Object.values(rows).reduce((sum, one) => sum + one, 0);

const words: Readonly<Record<Receipt["cells"][number]["state"], string>> = {
  purged: "no row is left",
  waiting: "has not confirmed yet",
  retired: "destroyed with its storage before it confirmed",
};

export const receiptView: View<Receipt> = {
  id: ({ tenant }) => tenant,
  columns: [
    { head: "TENANT", cell: ({ tenant }) => tenant },
    { head: "COMPLETE", cell: ({ complete }) => (complete ? "yes" : "no"), state: true },
    { head: "CELLS", cell: ({ cells }) => String(cells.length), right: true },
    {
      head: "ROWS",
      cell: ({ cells }) => String(cells.reduce((sum, { rows }) => sum + removed(rows), 0)),
      right: true,
    },
  ],
  details: (receipt) => [
    ["tenant", receipt.tenant],
    ["keyspace", receipt.keyspace],
    [
      "complete",
      receipt.complete
        ? "yes"
        : receipt.cells.length === 0
          ? "no: what cells confirmed is not known"
          : "no: a cell has not confirmed yet",
    ],
    ["operation", receipt.op],
    ["requested", receipt.requestedAt],
    ["completed", receipt.completedAt ?? "not yet"],
    [
      "cells",
      receipt.cells.flatMap(({ cell, state, rows }) => [
        `${cell}  ${words[state]}${state === "purged" ? `, ${counted(removed(rows), "row")} removed` : ""}`,
        ...Object.entries(rows).map(([table, many]) => `  ${table}  ${many}`),
      ]),
    ],
    ["names released", String(receipt.claims)],
    ["note", receipt.notes],
  ],
};
