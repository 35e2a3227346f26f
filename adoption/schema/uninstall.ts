/**
 * `schema uninstall`: takes guard, visibility and leased ids off, then the schema `cellfleet`. Refused
 * while somebody counts on the guard: the routers would go on to believe in a fence.
 */

import { type ProtectStep, unprotectSteps } from "../../cell/store/protect.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { readDependents, uninstallPack } from "../../cell/store/uninstall.ts";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import { type AppCatalog, readAppCatalog } from "./app-catalog.ts";
import type { Database } from "./database.ts";
import { withInstallationLock } from "./installation-lock.ts";
import { type LockLimits, lockLimitsDefault } from "./lock-bounded.ts";
import { bearsTraces } from "./plan-guard.ts";
import { planUninstall, type UninstallPlan } from "./plan-uninstall.ts";
import { runPlan } from "./run-plan.ts";
import type { StepEvent } from "./step.ts";

export type UninstallOptions = {
  readonly database: Database;
  readonly dropAdded: boolean;
  readonly force: boolean;
};

export type UninstallRun = UninstallOptions & {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits?: LockLimits;
  readonly emit: (event: StepEvent) => Promise<void> | void;
  readonly signal: AbortSignal;
};

/** Throws SAFETY_RULE while an agent or a stage counts on the guard, unless forced. */
export async function planRemoval(options: UninstallOptions): Promise<UninstallPlan> {
  const { client } = options.database;
  const catalog = await readAppCatalog(client);
  if (!options.force) await refuseWhileCountedOn(client, catalog.pack);
  const lists = new Map<string, readonly ProtectStep[]>();
  for (const { name, schema, table } of catalog.tables.filter(bearsTraces)) {
    lists.set(name, await unprotectSteps(client, schema, table));
  }
  return planUninstall(catalog, options, lists);
}

/**
 * The stage here is told by an agent, and `schema install` begins with `observe`: without an agent the
 * database says so for ever, though the fleet has never left pass-through, or went back. In `observe`
 * nothing is refused, so that without an agent's lease nobody counts on the guard.
 */
async function refuseWhileCountedOn(client: Queryable, pack: AppCatalog["pack"]): Promise<void> {
  const { schema, stage, cell } = pack;
  if (!schema || stage === null || stage === "pass-through") return;
  if (stage === "observe" && !(await isLeaseLive(client))) return;
  throw new CellError(
    "SAFETY_RULE",
    `The database of the cell ${cell ?? ""} is in stage ${stage}${stage === "observe" ? ", and an agent holds its lease" : ""}: routers and agents count on the guard; nothing was changed`,
    {
      nextSteps: [
        `first: cellctl cell stage ${cell ?? "CELL"} pass-through`,
        "if the cell is there already: stop its agents, and run this again when their lease is over, a minute later at most",
        "or --force, when no fleet knows this database any more",
      ],
    },
  );
}

async function isLeaseLive(client: Queryable): Promise<boolean> {
  const { rows } = await client.query<{ live: boolean }>("select cellfleet.lease_live() as live");
  return rows[0]?.live !== false;
}

/** What the steps take off themselves. */
const ours = /^(policy cellfleet_|trigger zz_cellfleet_|default value )/;

/** Before the guard comes off: what of the application's own leans on the pack would go with it. */
async function refuseDependents(client: Queryable): Promise<void> {
  const foreign = (await readDependents(client)).filter((name) => !ours.test(name));
  if (foreign.length === 0) return;
  throw new CellError("SAFETY_RULE", `These use the schema cellfleet: ${foreign.join(", ")}`, {
    nextSteps: ["drop or change them, and run the same command again"],
    details: { dependents: foreign },
  });
}

export const runRemoval = (run: UninstallRun): Promise<UninstallPlan["stays"]> =>
  withInstallationLock(run.database.client, () => removeAll(run));

async function removeAll(run: UninstallRun): Promise<UninstallPlan["stays"]> {
  const { database, clock, random, emit, signal } = run;
  const plan = await planRemoval(run);
  await refuseDependents(database.client);
  const watcher = await database.open();
  const limits = run.limits ?? lockLimitsDefault;
  const changePack = () => uninstallPack(database.client);
  await runPlan(
    { client: database.client, watcher, clock, random, emit, signal, limits, changePack },
    { steps: plan.steps, advice: [] },
  );
  return plan.stays;
}
