/**
 * One line of an import → one tenant to be placed, or the reason why not. The rules are those of
 * `POST /v1/tenants`: one schema for both doors.
 */
import { type NewTenant, newTenantSchema } from "../../contract/control-api.ts";
import { defaultKeyspace } from "../../contract/ids.ts";
import type { Tier } from "./fleet.ts";

export type ImportLine = {
  readonly line: number;
  readonly id: string;
  readonly keyspace: string;
  readonly tier: Tier;
  readonly region: string | null;
  readonly cell: string | null;
  readonly bytes: number;
  readonly rps: number;
  readonly labels: Readonly<Record<string, string>>;
};

export type LineResult =
  | { readonly ok: true; readonly line: ImportLine }
  | { readonly ok: false; readonly line: number; readonly error: string };

const problemsShownMax = 3;

export function parseImportLine(line: number, raw: unknown): LineResult {
  const parsed = newTenantSchema.safeParse(raw);
  if (parsed.success) return { ok: true, line: toLine(line, parsed.data) };
  const error = parsed.error.issues
    .slice(0, problemsShownMax)
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join(".")}: ${message}`))
    .join("; ");
  return { ok: false, line, error };
}

const toLine = (line: number, tenant: NewTenant): ImportLine => ({
  line,
  id: tenant.id,
  keyspace: tenant.keyspace ?? defaultKeyspace,
  tier: tenant.tier,
  region: tenant.region ?? null,
  cell: tenant.cell ?? null,
  bytes: tenant.size.bytes,
  rps: tenant.size.rps,
  labels: tenant.labels,
});

/** Columns of a CSV file; `label.NAME` gives labels. An empty field is an absent one. */
export const csvColumns = ["id", "keyspace", "tier", "region", "cell", "bytes", "rps"] as const;
const labelPrefix = "label.";

/** Why the first line is no header, or undefined. */
export function csvHeaderProblem(header: readonly string[]): string | undefined {
  const unknown = header.filter(
    (name) => !csvColumns.some((known) => known === name) && !name.startsWith(labelPrefix),
  );
  if (!header.includes("id")) return 'the header names no column "id"';
  if (new Set(header).size < header.length) return "the header names a column twice";
  if (unknown.length === 0) return undefined;
  return `unknown columns ${unknown.slice(0, 5).join(", ")}; known are ${csvColumns.join(", ")} and ${labelPrefix}NAME`;
}

/** The same object that a line of NDJSON holds. */
export function csvRecord(header: readonly string[], fields: readonly string[]): unknown {
  const tenant: Record<string, unknown> = {};
  const size: Record<string, unknown> = {};
  const labels: Record<string, string> = {};
  for (const [at, name] of header.entries()) {
    const value = fields[at] ?? "";
    if (value === "") continue;
    if (name.startsWith(labelPrefix)) labels[name.slice(labelPrefix.length)] = value;
    else if (name === "bytes" || name === "rps") size[name] = numberOrText(value);
    else tenant[name] = value;
  }
  return { ...tenant, size, labels };
}

/** What is no number stays text, so that the schema says what is wrong with it. */
const numberOrText = (value: string): number | string =>
  /^\d+(\.\d+)?$/.test(value) ? Number(value) : value;
