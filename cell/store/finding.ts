/** One thing that is wrong with a store, and the statement that mends it. */
import { escapeIdentifier } from "pg";

export const findingCodes = [
  "TABLE_UNCLASSED",
  "TABLE_MISSING",
  "TABLE_MISCLASSED",
  "KEY_COLUMN_MISSING",
  "KEY_COLUMN_NULLABLE",
  "KEY_NOT_IN_IDENTITY",
  "GUARD_MISSING",
  "GUARD_DIFFERENT",
  "GUARD_NOT_LAST",
  "VISIBILITY_MISSING",
  "IDS_NOT_LEASED",
  "VIEW_UNFENCED",
  "ROLE_TOO_STRONG",
  "UNIQUE_WITHOUT_KEY",
  "LARGE_OBJECT",
  "TRUNCATE_GRANTED",
  "CHILD_WITHOUT_KEY",
  "PRIMARY_KEY_MISSING",
  "SEQUENCE_SHARED",
  "POLICY_HIDES",
  "INHERITED_TABLE",
  "RULE_REWRITES",
] as const;
export type FindingCode = (typeof findingCodes)[number];

/**
 * `fault`: something passes the fence, or would be lost in a move. `risk`: harmless in one cell;
 * somebody who knows the application has to decide before there are two.
 */
export type Severity = "fault" | "risk";

const risks: readonly FindingCode[] = [
  "UNIQUE_WITHOUT_KEY",
  "TRUNCATE_GRANTED",
  "PRIMARY_KEY_MISSING",
  "SEQUENCE_SHARED",
];

export type Finding = {
  readonly code: FindingCode;
  readonly severity: Severity;
  /** `public.orders`, or the role or view that is meant. */
  readonly object: string;
  readonly text: string;
  /** SQL, or a line of the manifest, that mends it. */
  readonly mend: string;
};

export function finding(
  code: FindingCode,
  object: string,
  text: string,
  { mend }: { readonly mend: string },
): Finding {
  return { code, severity: risks.includes(code) ? "risk" : "fault", object, text, mend };
}

type Named = { readonly schema: string; readonly table: string };

export const nameOf = ({ schema, table }: Named): string => `${schema}.${table}`;
export const sqlName = ({ schema, table }: Named): string =>
  `${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;
