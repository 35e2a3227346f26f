/**
 * `schema install`: reads the catalog, plans, and runs the plan; and reads the catalog again, because
 * an installation is finished when planning anew leaves nothing to do.
 */
import { createHash } from "node:crypto";
import { escapeLiteral } from "pg";
import { installPack, type PackRoles, packContent } from "../../cell/store/install.ts";
import type { Manifest } from "../../cell/store/manifest.ts";
import { type ProtectStep, protectSteps } from "../../cell/store/protect.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import { columnOf, readAppCatalog } from "./app-catalog.ts";
import { requireAppRole } from "./app-role.ts";
import type { Database } from "./database.ts";
import { withInstallationLock } from "./installation-lock.ts";
import { type LockLimits, lockLimitsDefault } from "./lock-bounded.ts";
import { isLater } from "./plan-guard.ts";
import { type InstallStage, type ProtectLists, planInstall } from "./plan-install.ts";
import { rehearse } from "./rehearsal.ts";
import { runPlan } from "./run-plan.ts";
import type { Plan, StepEvent } from "./step.ts";
import { type TenantTable, tenantTables } from "./tenant-tables.ts";

export type InstallOptions = {
  readonly database: Database;
  readonly manifest: Manifest;
  readonly cell: string;
  readonly stage: InstallStage;
  /** `keep`: the pack that is installed stays as it is; whoever migrates tables need not own it. */
  readonly pack: { readonly roles: PackRoles } | "keep";
  readonly replaceUnique: readonly string[] | "all";
};

export type InstallRun = InstallOptions & {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits?: LockLimits;
  readonly emit: (event: StepEvent) => Promise<void> | void;
  readonly signal: AbortSignal;
};

/** A plan may hold more after the first run: what is found only where the rows have been filled. */
const passesMax = 3;

/** `dry`: where the pack is not there yet, it is asked all the same, and is not there afterwards. */
export async function planInstallation(
  options: InstallOptions,
  { dry = false }: { readonly dry?: boolean } = {},
): Promise<Plan> {
  const { client } = options.database;
  const catalog = await readAppCatalog(client);
  const owner = catalog.pack.cell;
  if (owner !== null && owner !== options.cell) {
    throw new CellError(
      "CONFIG_INVALID",
      `The database belongs to the cell ${owner}, not to ${options.cell}`,
      {
        nextSteps: [`cellctl schema install --cell ${owner} …`],
      },
    );
  }
  const tables = tenantTables(catalog, options.manifest);
  refuseHeirs(tables);
  const wish = {
    ...options,
    packDigest: options.pack === "keep" ? (catalog.pack.digest ?? "") : packDigest(),
    moverRole: options.pack === "keep" ? undefined : options.pack.roles.moverRole,
  };
  const read = () => readProtectLists(client, tables);
  const { pack, cell, stage } = options;
  let lists: ProtectLists = new Map();
  if (catalog.pack.digest === wish.packDigest) lists = await read();
  else if (dry && pack !== "keep" && !catalog.pack.schema) {
    lists = (await rehearse(client, { ...pack.roles, cellId: cell, stage }, read)) ?? lists;
  }
  return planInstall(catalog, options.manifest, wish, lists);
}

/** Their rows show in the parent, past its guard. Before anything is changed. */
function refuseHeirs(tables: readonly TenantTable[]): void {
  const [first, ...more] = tables.filter(({ facts }) => facts.heirs.length > 0);
  if (first === undefined) return;
  const names = [first, ...more].map(({ facts }) => `${facts.name} (${facts.heirs.join(", ")})`);
  throw new CellError(
    "SCHEMA_UNFIT",
    `Other tables inherit from tables of tenants, whose guard does not reach their rows: ${names.join("; ")}`,
    {
      nextSteps: [
        "alter table CHILD no inherit PARENT; then class CHILD as a table of its own",
        "or make PARENT a partitioned table; cellctl schema check names each pair",
      ],
    },
  );
}

/** Of tables that have their column. */
async function readProtectLists(
  client: Queryable,
  tables: readonly TenantTable[],
): Promise<ProtectLists> {
  const lists = new Map<string, readonly ProtectStep[]>();
  for (const { facts, keyColumn, keyspace } of tables) {
    if (columnOf(facts, keyColumn) === undefined) continue;
    const { schema, table } = facts;
    lists.set(facts.name, await protectSteps(client, { schema, table, keyColumn, keyspace }));
  }
  return lists;
}

/** As the installer of the pack records it. */
const packDigest = (): string => createHash("sha256").update(packContent()).digest("hex");

const packOwnerRole = "cellfleet_owner";

/** The pack as text, as the installer runs it. */
export function packScript(roles: PackRoles, cell: string, stage: InstallStage): string {
  const settings = Object.entries({
    app_role: roles.appRole,
    app_owner_role: roles.appOwnerRole,
    agent_role: roles.agentRole,
    reader_role: roles.readerRole ?? "",
    mover_role: roles.moverRole ?? "",
    stage,
  }).map(
    ([name, value]) =>
      `select set_config('cellfleet_install.${name}', ${escapeLiteral(value)}, true);`,
  );
  const { moverRole } = roles;
  return [
    "-- As a role that may create roles, or with the roles there. Missing roles are made:",
    `-- ${packOwnerRole} (nologin), ${roles.appOwnerRole} (nologin), ${roles.appRole}, ${roles.agentRole}`,
    ...(moverRole === undefined
      ? []
      : [`-- ${moverRole}, which may act as ${packOwnerRole} and as ${roles.appOwnerRole}`]),
    "begin;",
    `create schema if not exists cellfleet authorization ${packOwnerRole};`,
    `set local role ${packOwnerRole};`,
    "set local search_path = pg_catalog, pg_temp;",
    ...settings,
    packContent(),
    `update cellfleet.progress set cell = ${escapeLiteral(cell)} where cell is null;`,
    "commit;",
  ].join("\n");
}

export type RoleWish = {
  readonly appRole: string | undefined;
  readonly appOwnerRole: string | undefined;
  readonly agentRole: string | undefined;
  readonly readerRole: string | undefined;
  /** Absent: none is made, and nothing of this database can move yet. */
  readonly moverRole?: string | undefined;
};

/**
 * Names that were not given: the owner of the tenants' tables is a fact, not a wish. Which role the
 * application logs in as is asked for, and must be there: REQUEST_INVALID.
 */
export async function chooseRoles(
  client: Queryable,
  manifest: Manifest,
  wish: RoleWish,
): Promise<PackRoles> {
  const tables = tenantTables(await readAppCatalog(client), manifest);
  const owners = [...new Set(tables.map(({ facts }) => facts.owner))];
  const [owner] = owners;
  if (wish.appOwnerRole === undefined && owners.length > 1) {
    throw new CellError(
      "CONFIG_INVALID",
      `The tenants' tables have several owners: ${owners.join(", ")}`,
      {
        nextSteps: ["name the one that may make triggers on all of them: --app-owner-role ROLE"],
      },
    );
  }
  const appOwnerRole = wish.appOwnerRole ?? owner;
  if (appOwnerRole === undefined) {
    throw new CellError(
      "SCHEMA_UNFIT",
      "No table of a tenant stands both in manifest and database",
      {
        nextSteps: ["cellctl schema init --database-url REF proposes a manifest"],
      },
    );
  }
  return {
    appOwnerRole,
    appRole: await requireAppRole(client, manifest, wish.appRole),
    agentRole: wish.agentRole ?? "cellfleet_agent",
    readerRole: wish.readerRole ?? "cellfleet_reader",
    ...(wish.moverRole === undefined ? {} : { moverRole: wish.moverRole }),
  };
}

/** Returns the advice: what a person has to decide. Throws STATE_CONFLICT beside another installation. */
export const runInstallation = (run: InstallRun): Promise<Plan["advice"]> =>
  withInstallationLock(run.database.client, () => installAll(run));

async function installAll(run: InstallRun): Promise<Plan["advice"]> {
  const { database, clock, random, emit, signal } = run;
  const watcher = await database.open();
  const context = {
    client: database.client,
    watcher,
    clock,
    random,
    emit,
    signal,
    limits: run.limits ?? lockLimitsDefault,
    changePack: () =>
      run.pack === "keep"
        ? Promise.reject(
            new CellError("CONFIG_INVALID", `${run.cell}: nothing of ours is installed`),
          )
        : installPack(database.client, { ...run.pack.roles, cellId: run.cell, stage: run.stage }),
  };
  for (let pass = 1; ; pass += 1) {
    const whole = await planInstallation(run);
    // What the pack could not tell yet is asked again when the others are done.
    const plan = { ...whole, steps: whole.steps.filter((step) => !isLater(step)) };
    if (whole.steps.length === 0) return plan.advice;
    if (pass > passesMax) {
      const left = plan.steps.map(({ id }) => id).join(", ");
      throw new CellError("OP_FAILED", `These steps ran and are not done: ${left}`);
    }
    await runPlan(context, plan);
  }
}
