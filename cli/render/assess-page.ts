/**
 * An assessment as a page for people: the verdict first, then how full everything is, then why and
 * what to do. Bars are drawn of characters, so that the page can be pasted anywhere.
 */
import type { Assessment } from "../adoption.ts";
import { printable } from "./printable.ts";
import { bytes, count } from "./units.ts";
import { fitTo, padTo } from "./width.ts";

const barWidth = 20;
const nameWidth = 28;
const tablesShown = 5;
const tenantsShown = 5;
const namesShown = 8;

/** `share` of the limit; what is beyond it fills the bar and is told by the number. */
export function bar(share: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * barWidth);
  return "█".repeat(full) + "░".repeat(barWidth - full);
}

export function assessPage(assessment: Assessment): string {
  const { facts } = assessment;
  const lines = [
    `${facts.database} on PostgreSQL ${facts.versionName}: ${size(assessment)}`,
    "",
    assessment.headline,
    "",
    ...section("How full", gauges(assessment)),
    ...section("Symptoms", symptoms(assessment)),
    ...section(
      "First",
      assessment.first.map((step, index) => `${index + 1}. ${step}`),
    ),
    ...section("Largest tenants", tenants(assessment)),
    ...section("Busiest tables", tables(assessment)),
    ...section("Tables without a key", keyless(assessment)),
    ...section("Replicas", replicas(assessment)),
    ...section(
      "Not seen",
      assessment.unseen.map((line) => `- ${line}`),
    ),
  ];
  return `${lines.map(printable).join("\n").trimEnd()}\n`;
}

const section = (head: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : [head, ...lines.map((line) => `  ${line}`), ""];

function size({ facts, phase }: Assessment): string {
  const { tenants: found, growthBytesPerDay } = facts;
  return [
    bytes(facts.bytes),
    `${facts.tables.length} tables`,
    ...(found?.tenants === null || found?.tenants === undefined
      ? []
      : [`about ${count(found.tenants)} tenants (${found.column})`]),
    ...(growthBytesPerDay === null ? [] : [`grows ${bytes(growthBytesPerDay)} a day`]),
    `phase: ${phase}`,
  ].join(", ");
}

const gauges = ({ gauges: all }: Assessment): string[] =>
  all.map(
    ({ id, text, share }) =>
      `${padTo(id, 16)} ${bar(share)} ${`${Math.round(share * 100)} %`.padStart(6)}  ${text}`,
  );

const symptoms = ({ symptoms: all }: Assessment): string[] =>
  all.map(({ weight, phase, text }) => `${weight === "act" ? "×" : "!"} ${text}  [${phase}]`);

function tenants({ facts }: Assessment): string[] {
  const found = facts.tenants;
  if (found === null) return [];
  const rows = found.top
    .slice(0, tenantsShown)
    .map(({ tenant, rows: of, share }) => line(tenant, share, `${count(of)} rows`));
  const how = found.how === "exact" ? "counted" : "from the statistics of ANALYZE";
  const none = found.top.length === 0 ? ["none stands out"] : [];
  return [...rows, ...none, `${found.column}: ${found.why}; ${how}`];
}

const tables = ({ facts, hotTables }: Assessment): string[] =>
  hotTables.slice(0, tablesShown).map(({ table: name, share }) => {
    const table = facts.tables.find((one) => one.name === name);
    const rows = table === undefined || table.rows < 0 ? "" : `, ${count(table.rows)} rows`;
    return line(name, share, `of the writes; ${bytes(table?.bytes ?? 0)}${rows}`);
  });

function keyless({ facts, withoutKey, withoutPrimaryKey }: Assessment): string[] {
  const told = (names: readonly string[], what: string): string[] => {
    if (names.length === 0) return [];
    const more = names.length > namesShown ? ` and ${names.length - namesShown} more` : "";
    return [`without ${what}: ${names.slice(0, namesShown).join(", ")}${more}`];
  };
  return [
    ...told(withoutKey, `the column ${facts.tenants?.column ?? ""}`),
    ...told(withoutPrimaryKey, "a primary key"),
  ];
}

const line = (name: string, share: number, text: string): string =>
  `${padTo(fitTo(printable(name), nameWidth), nameWidth)} ${bar(share)} ${`${Math.round(share * 100)} %`.padStart(6)}  ${text}`;

const replicas = ({ facts }: Assessment): string[] =>
  facts.replicas.map(({ name, state, lagMs, lagBytes }) => {
    const lag = lagMs === null ? "no lag told" : `${lagMs} ms behind`;
    return `${name}: ${state}, ${lag}${lagBytes === null ? "" : `, ${bytes(lagBytes)} of log`}`;
  });
