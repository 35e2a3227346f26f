/** May each table of the keys be streamed, and keep its rows apart in two cells? Pure. */
import { escapeIdentifier } from "pg";
import type { MoveCheck } from "../../contract/move-api.ts";
import { type CheckPlace, listed, passed, refused, warned } from "./check.ts";
import type { TableFacts } from "./facts.ts";

/** One line for everything that is as it should be; one per table and fault else. */
type Rule = {
  readonly id: string;
  readonly good: string;
  readonly look: (table: TableFacts, place: CheckPlace) => readonly MoveCheck[];
};

const rules: readonly Rule[] = [
  {
    id: "table-owner",
    good: "the mover may act for the owner of every table",
    look: ({ name, foreignOwner }, place) =>
      foreignOwner === null
        ? []
        : [
            refused(
              "table-owner",
              place,
              `${name} belongs to ${foreignOwner}, for whom the mover may not act`,
              `grant ${escapeIdentifier(foreignOwner)} to MOVER with inherit true, set true;`,
            ),
          ],
  },
  {
    id: "replica-identity",
    good: "replication tells whose every row is",
    look: (table, place) =>
      table.unidentified.map(({ name, deferrable }) =>
        refused(
          "replica-identity",
          place,
          deferrable
            ? `the primary key of ${name} is deferrable: replication does not go by it`
            : `what identifies a row of ${name} to replication has no ${table.keyColumn}: a publication would refuse the application's own updates`,
          `create unique index concurrently ${escapeIdentifier(`${name.replaceAll(/[".]/g, "_")}_move`)} on ${name} (${escapeIdentifier(table.keyColumn)}, ID); then alter table ${name} replica identity using index that one`,
        ),
      ),
  },
  {
    id: "uniques",
    good: "what is unique is unique per tenant, or different in each cell by itself",
    look: (table, place) =>
      table.uniques
        .filter(({ global }) => !global)
        .map(({ name, columns }) =>
          refused(
            "uniques",
            place,
            `${name} makes (${columns}) unique over all tenants of ${table.name}: a row of the target may stand in the way of one that comes`,
            `make it unique per tenant: create unique index concurrently ... on ${table.name} (${escapeIdentifier(table.keyColumn)}, ${columns}); then drop ${name}`,
          ),
        ),
  },
  {
    id: "exclusions",
    good: "no exclusion reaches over tenants",
    look: (table, place) =>
      table.exclusions.map((name) =>
        refused(
          "exclusions",
          place,
          `${name} excludes over all tenants of ${table.name}`,
          `make it anew with ${escapeIdentifier(table.keyColumn)} with = as its first element`,
        ),
      ),
  },
  {
    id: "ids",
    good: "ids come from ranges that are this cell's alone",
    look: (table, place) =>
      several(table.unleased, (columns) =>
        refused(
          "ids",
          place,
          `${columns} of ${table.name} come from a sequence that the other cell has as well`,
          "cellctl schema install",
        ),
      ),
  },
  {
    id: "large-objects",
    good: "no column refers to a large object",
    look: (table, place) =>
      several(table.largeObjects, (columns) =>
        refused(
          "large-objects",
          place,
          `${columns} of ${table.name} may refer to large objects, which replication does not carry`,
          "keep the bytes in a column of type bytea, or outside of PostgreSQL",
        ),
      ),
  },
  {
    id: "unlogged",
    good: "every table is logged",
    look: (table, place) =>
      table.unlogged.map((name) =>
        refused(
          "unlogged",
          place,
          `${name} is unlogged: nothing of it is replicated`,
          `alter table ${name} set logged;`,
        ),
      ),
  },
  {
    id: "partitions",
    good: "partitions are tables of this database",
    look: (table, place) =>
      table.foreignParts.map((name) =>
        refused(
          "partitions",
          place,
          `${name} is a foreign table: its rows do not move`,
          `alter table ${table.name} detach partition ${name};`,
        ),
      ),
  },
  {
    id: "apply-triggers",
    good: "no trigger of the application fires while rows are copied",
    look: (table, place) =>
      several(table.applyTriggers, (names) =>
        warned(
          "apply-triggers",
          place,
          `${names} of ${table.name} fire for every row that is copied or streamed, in the target as well`,
          `alter table ${table.name} enable trigger NAME; so that they fire for the application alone`,
        ),
      ),
  },
  {
    id: "row-security",
    good: "no policy is forced on the tables' owner",
    look: (table, place) =>
      table.forcesRowSecurity
        ? [
            warned(
              "row-security",
              place,
              `${table.name} forces its policies on its owner too: the rows that are left after the move are removed by the mover alone`,
              `alter table ${table.name} no force row level security;`,
            ),
          ]
        : [],
  },
];

export function judgeTables(tables: readonly TableFacts[], place: CheckPlace): MoveCheck[] {
  const found = rules.flatMap(({ id, good, look }) => {
    const faults = tables.flatMap((table) => look(table, place));
    return faults.length > 0 ? faults : [passed(id, place, good)];
  });
  const generated = tables.flatMap(({ name, generated: columns }) =>
    columns.map((column) => `${name}.${column}`),
  );
  const text =
    generated.length === 0
      ? "no column is generated"
      : `generated in the target anew, not copied: ${listed(generated)}`;
  return [...found, passed("generated", place, text)];
}

const several = (
  names: readonly string[],
  one: (names: string) => MoveCheck,
): readonly MoveCheck[] => (names.length === 0 ? [] : [one(listed(names))]);
