/** One check of the preflight, as a value: what was looked at, and how what was found is told. Pure. */
import type { MoveCheck } from "../../contract/move-api.ts";

/** Empty texts: it is about the move as a whole. */
export type CheckPlace = { readonly cell: string; readonly store: string };

export const wholeMove: CheckPlace = { cell: "", store: "" };

export const passed = (id: string, place: CheckPlace, text: string): MoveCheck => ({
  id,
  ...place,
  verdict: "ok",
  text,
  fix: "",
});

export const refused = (id: string, place: CheckPlace, text: string, fix: string): MoveCheck => ({
  id,
  ...place,
  verdict: "refused",
  text,
  fix,
});

export const warned = (id: string, place: CheckPlace, text: string, fix: string): MoveCheck => ({
  id,
  ...place,
  verdict: "warning",
  text,
  fix,
});

/** At most ten of them, and how many more. */
export const listed = (names: readonly string[]): string =>
  names.length <= 10
    ? names.join(", ")
    : `${names.slice(0, 10).join(", ")} and ${names.length - 10} more`;
