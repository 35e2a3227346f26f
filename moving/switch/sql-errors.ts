/** What the functions of cell/sql/110-move.sql refuse, as they say it. Pure. */
import { sqlStateOf } from "../../cell/store/queryable.ts";

/** Something of a greater attempt, or of a later operation, stands. */
export const isOvertaken = (error: unknown): boolean => sqlStateOf(error) === "55000";
/** A writer was not done within the lock timeout. */
export const isBlocked = (error: unknown): boolean => sqlStateOf(error) === "55P03";

export const textOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
