/** A proposal as the text of `cellfleet.schema.yaml`, with its reasons as comments. Pure. */
import { isTableName } from "../../cell/store/manifest.ts";
import type { Proposal, ProposedTable } from "./propose.ts";

const mayStandBare = /^[A-Za-z_][A-Za-z0-9_-]*$/;
/** Words that YAML reads as something else than text. */
const yamlWords = /^(y|n|yes|no|on|off|true|false|null|~)$/i;

/** JSON's double-quoted text is YAML's, too. */
const scalar = (text: string): string =>
  mayStandBare.test(text) && !yamlWords.test(text) ? text : JSON.stringify(text);

/** A name from a catalog may hold a line break, which would end the comment. */
const comment = (text: string): string => text.replaceAll(/[^\P{C}]/gu, "?").toWellFormed();

export function writeManifest(proposal: Proposal, store: string, keyspace: string): string {
  const named = proposal.tables.filter(({ name }) => isTableName(name));
  const undecided = named.filter((table) => table.class === "undecided");
  const decided = named.filter((table) => table.class !== "undecided");
  const unnamed = proposal.tables.filter(({ name }) => !isTableName(name));
  const others = proposal.otherKeys.map(({ column, why }) => `# Or: keyColumn ${column} (${why}).`);
  return `${[
    "# What each table of this store is: for the guard, for moves and standbys, and for",
    "# `cellctl schema check`. A table that is not named here is refused: forgotten, it would be",
    "# left behind when its tenant moves. Proposed by `cellctl schema init`: read it, then keep it",
    "# beside your migrations.",
    "version: 1",
    `store: ${scalar(store)}`,
    `keyspace: ${scalar(keyspace)}`,
    `# ${comment(proposal.keyWhy)}.`,
    ...others.map(comment),
    `keyColumn: ${scalar(proposal.keyColumn)}`,
    "",
    "# tenant: has rows of one tenant each. reference: the same in every cell. cell-local: of this",
    "# cell alone, never moved. ignore: no business of ours.",
    decided.length > 0 ? "tables:" : "tables: {}",
    ...decided.flatMap(tableLines),
    ...(undecided.length === 0
      ? []
      : ["", "  # Undecided: class each of these, and take its # away."]),
    ...undecided.flatMap(({ name, why }) => [
      `  # ${comment(why)}`,
      `  # ${scalar(shortName(name))}: ?`,
    ]),
    ...(unnamed.length === 0
      ? []
      : [
          "",
          "  # No manifest can name these (a dot, a quote or a control character): rename them.",
        ]),
    ...unnamed.map(({ name }) => `  # ${comment(JSON.stringify(name))}`),
  ].join("\n")}\n`;
}

function tableLines(table: ProposedTable): string[] {
  const name = scalar(shortName(table.name));
  const value =
    table.keyColumn === undefined
      ? table.class
      : `{ class: ${table.class}, keyColumn: ${scalar(table.keyColumn)} }`;
  return [`  # ${comment(table.why)}`, `  ${name}: ${value}`];
}

/** `public` is the manifest's default. */
const shortName = (name: string): string =>
  name.startsWith("public.") && !name.slice(7).includes(".") ? name.slice(7) : name;
