/**
 * Takes off what `install` put on, in the order that leaves the application working after each step.
 * Pure. What was added to the application's own tables stays, unless it is asked for: a column that
 * is filled harms nobody, and dropping it cannot be taken back.
 */
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import { guardSteps } from "./plan-guard.ts";
import { isIdentityIndex } from "./plan-identity.ts";
import type { ProtectLists } from "./plan-install.ts";
import { fillFunction } from "./plan-key.ts";
import type { Step } from "./step.ts";
import { column, sqlName } from "./table-name.ts";
import { fillTrigger } from "./tenant-tables.ts";

export type UninstallPlan = {
  readonly steps: readonly Step[];
  /** What stays behind, one sentence each. */
  readonly stays: readonly string[];
};

export function planUninstall(
  catalog: AppCatalog,
  options: { readonly dropAdded: boolean },
  protect: ProtectLists,
): UninstallPlan {
  const added = catalog.tables.map(addedTo);
  return {
    steps: [
      ...catalog.tables.flatMap((table) => guardSteps(table, protect.get(table.name) ?? [], "off")),
      ...(catalog.pack.schema ? [dropPack] : []),
      ...(options.dropAdded ? added.flatMap(({ steps }) => steps) : []),
    ],
    stays: [
      ...(options.dropAdded ? [] : added.flatMap(({ stays }) => stays)),
      "roles: cellfleet_owner and those that you named; drop role … when no other database of this server needs them",
    ],
  };
}

const dropPack: Step = {
  id: "drop-pack cellfleet",
  kind: "drop-pack",
  object: "cellfleet",
  way: "ours",
  lock: "none on your tables",
  why: "nothing of yours calls it any more",
  undo: "cellctl schema install",
  sql: ["-- refused while anything of yours leans on it", "drop schema cellfleet cascade;"],
};

type Added = { readonly steps: readonly Step[]; readonly stays: readonly string[] };

function addedTo(table: AppTable): Added {
  const name = sqlName(table);
  const identity = table.indexes.find((index) => isIdentityIndex(table, index))?.name;
  // The trigger's argument names the column that came with it.
  const filled = table.triggers.find((trigger) => trigger.name === fillTrigger);
  const keyColumn = filled?.args[0];
  const base = {
    kind: "drop-added",
    object: table.name,
    lock: "ACCESS EXCLUSIVE, for a moment",
    undo: "cellctl schema install",
  } as const;
  const steps: Step[] = [
    ...(identity !== undefined
      ? [
          {
            ...base,
            id: `drop-added ${table.schema}.${identity}`,
            way: "locked",
            hold: name,
            why: "the identity is the primary key again",
            sql: [
              `alter table ${name} replica identity default;`,
              `drop index if exists ${column(table.schema)}.${column(identity)};`,
            ],
          } as const,
        ]
      : []),
    ...(keyColumn === undefined
      ? []
      : [
          {
            ...base,
            id: `drop-added ${table.name}.${keyColumn}`,
            way: "locked",
            hold: name,
            why: "the column was filled by our trigger alone",
            sql: [
              `drop trigger ${fillTrigger} on ${name};`,
              // As it was called when it was made.
              `drop function ${column(table.schema)}.${column(filled?.calls ?? fillFunction(table.table))}();`,
              `alter table ${name} drop column ${column(keyColumn)};`,
            ],
          } as const,
        ]),
  ];
  const stays = [
    ...(identity !== undefined
      ? [`${table.name}: the index ${identity}, as replica identity`]
      : []),
    ...(keyColumn === undefined
      ? []
      : [`${table.name}: the column ${keyColumn}, and the trigger ${fillTrigger} that fills it`]),
  ];
  return { steps, stays };
}
