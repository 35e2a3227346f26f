/**
 * Pure: the one answer to a request that went to every cell.
 *
 * What must always be true: a cell is in `cells` or in `missing`, never in neither, and one that
 * answered without all of its tenants is in both, so that a short list always says that it is short. Bodies of JSON are embedded byte for byte: to parse and print
 * them would round large numbers.
 */
import { missingCellsHeader } from "../../contract/headers.ts";
import type { CellId } from "../../contract/ids.ts";

export const missingReasons = [
  /** No connection, or it broke. */
  "unreachable",
  /** Not whole within the deadline. */
  "late",
  /** The cell's queue in this router is full. */
  "overloaded",
  /** A status of 500 or above. */
  "failed",
  /** The cell did not confirm that it may serve. */
  "unconfirmed",
  /** Longer than one cell's answer, or all answers together, may be. */
  "too-large",
  /** In an encoding that was not asked for. */
  "unreadable",
  /** It owns tenants, and the table does not say where it, or the service in it, is. */
  "unlisted",
  /** Its tenants are being taken over by other cells. */
  "halted",
  /** It answered, while some tenant of it changed hands or could be served by nobody. */
  "unsettled",
] as const;
export type MissingReason = (typeof missingReasons)[number];

export type Part =
  | {
      readonly kind: "answered";
      readonly cell: CellId;
      /** What `embedAnswer` made of it. */
      readonly text: string;
    }
  | { readonly kind: "missing"; readonly cell: CellId; readonly reason: MissingReason };

export type FanOutAnswer = {
  readonly status: 200 | 207;
  readonly headers: readonly string[];
  readonly body: string;
};

export type MissingCell = { readonly cell: CellId; readonly reason: MissingReason };

/** By cell. `unsettled`: cells that may have answered without some of their tenants. */
export function missingOf(
  parts: readonly Part[],
  unsettled: ReadonlySet<CellId>,
): readonly MissingCell[] {
  return sortedByCell(parts).flatMap((part): MissingCell[] => {
    if (part.kind === "missing") return [{ cell: part.cell, reason: part.reason }];
    return unsettled.has(part.cell) ? [{ cell: part.cell, reason: "unsettled" }] : [];
  });
}

const sortedByCell = (parts: readonly Part[]): Part[] =>
  [...parts].sort((a, b) => Number(a.cell > b.cell) - Number(a.cell < b.cell));

/** `nameOf`: what a cell is called; no two of them alike. */
export function buildFanOutAnswer(
  parts: readonly Part[],
  missing: readonly MissingCell[],
  nameOf: (cell: CellId) => string = (cell) => cell,
): FanOutAnswer {
  const sorted = sortedByCell(parts);
  const cells = sorted.flatMap((part) =>
    part.kind === "answered" ? [`${JSON.stringify(nameOf(part.cell))}:${part.text}`] : [],
  );
  const complete = missing.length === 0;
  const named = missing.map(({ cell, reason }) => ({ cell: nameOf(cell), reason }));
  return {
    status: complete ? 200 : 207,
    headers: [
      ...["content-type", "application/json", "cache-control", "no-store"],
      ...(complete ? [] : [missingCellsHeader, named.map(({ cell }) => cell).join(", ")]),
    ],
    body: `{"complete":${complete},"cells":{${cells.join(",")}},"missing":${JSON.stringify(named)}}\n`,
  };
}

/**
 * People know a cell's annexes by the cell that they stand in. Where several of those answer, the first
 * in this order has the name, and the others are told apart: `cell-02`, `cell-02+1`.
 */
export function shownNames(
  cells: readonly CellId[],
  shownOf: (cell: CellId) => CellId,
): (cell: CellId) => string {
  const names = new Map<CellId, string>();
  const taken = new Map<CellId, number>();
  // A cell itself before those that stand in it.
  const whole = cells.filter((cell) => shownOf(cell) === cell);
  const annexes = cells.filter((cell) => shownOf(cell) !== cell).sort();
  for (const cell of [...whole, ...annexes]) {
    const shown = shownOf(cell);
    const before = taken.get(shown) ?? 0;
    names.set(cell, before === 0 ? shown : `${shown}+${before}`);
    taken.set(shown, before + 1);
  }
  return (cell) => names.get(cell) ?? cell;
}

/** A cell's answer as JSON. Made as it comes in: to check all bodies at the end would hold up others. */
export function embedAnswer(status: number, contentType: string, body: Buffer): string {
  const text = body.toString("utf8");
  if (text === "") return `{"status":${status},"body":null}`;
  if (isJsonType(contentType) && isJson(text)) return `{"status":${status},"body":${text.trim()}}`;
  const type = JSON.stringify(contentType);
  return `{"status":${status},"contentType":${type},"body":${JSON.stringify(text)}}`;
}

const isJsonType = (type: string): boolean =>
  /^application\/(?:json|[\w.+-]+\+json)\s*(?:;|$)/i.test(type);

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false; // The only error is a syntax error; such a body goes on as the text that it is.
  }
}
