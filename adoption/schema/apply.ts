/**
 * `schema apply`: a team's own migration tool, cell by cell. After it, new tables come under the guard
 * as the manifest says, a table that the manifest does not class stops the rollout, and the version is
 * recorded in the cell's database, where its agent reads it.
 *
 * Halts at the first failure. What is done stays done: cells that have the version are skipped.
 */
import { setSchemaVersion } from "../../cell/store/facts.ts";
import type { Manifest } from "../../cell/store/manifest.ts";
import { sqlStateOf } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import { readAppCatalog } from "./app-catalog.ts";
import type { Chain, MigrationTarget, Ring } from "./apply-order.ts";
import { checkSchema } from "./check.ts";
import { type Database, openDatabase } from "./database.ts";
import { runInstallation } from "./install.ts";
import { type CommandLine, runCommand } from "./run-command.ts";
import type { StepEvent } from "./step.ts";

export type ApplyEvent =
  | { readonly kind: "target.began"; readonly target: MigrationTarget; readonly ring: string }
  | { readonly kind: "target.skipped"; readonly target: MigrationTarget; readonly version: string }
  | { readonly kind: "line"; readonly target: MigrationTarget; readonly line: CommandLine }
  | { readonly kind: "step"; readonly target: MigrationTarget; readonly event: StepEvent }
  | { readonly kind: "target.done"; readonly target: MigrationTarget; readonly recorded: boolean };

export type ApplyRun = {
  readonly rings: readonly Ring[];
  readonly command: string;
  readonly cwd: string;
  /** The variable that carries the address. */
  readonly urlVariable: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absent: nothing is recorded, and nothing skipped. */
  readonly version: string | undefined;
  /** Absent: new tables are the caller's business. */
  readonly manifest: Manifest | undefined;
  readonly databaseUrl: (target: MigrationTarget) => Promise<string>;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: (event: ApplyEvent) => Promise<void> | void;
  readonly signal: AbortSignal;
};

export type ApplyResult = {
  readonly done: readonly MigrationTarget[];
  readonly skipped: readonly MigrationTarget[];
  /** Of one ring: what was begun beside the first that failed was let end. */
  readonly failed: readonly { readonly target: MigrationTarget; readonly error: CellError }[];
  readonly notBegun: readonly MigrationTarget[];
};

export async function applySchema(run: ApplyRun): Promise<ApplyResult> {
  const done: MigrationTarget[] = [];
  const skipped: MigrationTarget[] = [];
  const failed: { target: MigrationTarget; error: CellError }[] = [];
  const runChain = async (chain: Chain, ring: string) => {
    for (const target of chain) {
      if (failed.length > 0) return;
      try {
        run.signal.throwIfAborted();
        const outcome = await applyTo(run, target, ring);
        (outcome === "skipped" ? skipped : done).push(target);
      } catch (error) {
        failed.push({ target, error: asCellError(error) });
      }
    }
  };
  for (const { name, chains } of run.rings) {
    if (failed.length > 0) break;
    await Promise.all(chains.map((chain) => runChain(chain, name)));
  }
  const begun = new Set([...done, ...skipped, ...failed.map(({ target }) => target)]);
  const all = run.rings.flatMap(({ chains }) => chains.flat());
  return { done, skipped, failed, notBegun: all.filter((target) => !begun.has(target)) };
}

async function applyTo(
  run: ApplyRun,
  target: MigrationTarget,
  ring: string,
): Promise<"done" | "skipped"> {
  const url = await run.databaseUrl(target);
  const database = await openDatabase(url);
  try {
    const catalog = await readAppCatalog(database.client);
    refuseStranger(target, catalog.pack.cell);
    if (run.version !== undefined && (await readVersion(database)) === run.version) {
      await run.emit({ kind: "target.skipped", target, version: run.version });
      return "skipped";
    }
    await run.emit({ kind: "target.began", target, ring });
    await runTool(run, target, url);
    if (catalog.pack.schema && run.manifest !== undefined) {
      await protectNew(run, target, database, run.manifest);
    }
    const recorded = catalog.pack.schema && run.version !== undefined;
    if (recorded && run.version !== undefined) {
      await setSchemaVersion(database.client, run.version);
    }
    await run.emit({ kind: "target.done", target, recorded });
    return "done";
  } finally {
    await database.close();
  }
}

/** A reference that leads to another cell's database would migrate that one twice, and this one never. */
function refuseStranger(target: MigrationTarget, cell: string | null): void {
  if (cell === null || cell === target.cell || target.standbyOf !== undefined) return;
  throw new CellError(
    "CONFIG_INVALID",
    `The reference for ${target.cell} leads to the database of ${cell}`,
    {
      nextSteps: [`pass the right one: --database-url ${target.cell}=REF`],
    },
  );
}

async function runTool(run: ApplyRun, target: MigrationTarget, url: string): Promise<void> {
  const end = await runCommand({
    command: run.command,
    cwd: run.cwd,
    env: { ...run.env, [run.urlVariable]: url, CELL_ID: target.cell, CELL_STORE: target.store },
    onLine: (line) => run.emit({ kind: "line", target, line }),
    signal: run.signal,
  });
  if (end.kind === "done") return;
  throw new CellError("OP_FAILED", `The migration of ${target.cell} failed: ${end.reason}`);
}

async function protectNew(
  run: ApplyRun,
  target: MigrationTarget,
  database: Database,
  manifest: Manifest,
): Promise<void> {
  const { client } = database;
  const { clock, random, signal } = run;
  await runInstallation({
    ...{ database, manifest, cell: target.cell, stage: "enforce", pack: "keep", replaceUnique: [] },
    ...{ clock, random, signal },
    emit: (event) => run.emit({ kind: "step", target, event }),
  });
  const { items } = await checkSchema(client, manifest, undefined);
  const forgotten = items.filter(({ code }) => code === "TABLE_UNCLASSED");
  if (forgotten.length === 0) return;
  throw new CellError(
    "SCHEMA_UNFIT",
    `The migration of ${target.cell} made tables that the manifest does not class: ${forgotten.map(({ object }) => object).join(", ")}`,
    { nextSteps: forgotten.map(({ mend }) => mend) },
  );
}

/** Undefined where it is not known, or not for this role to see: then the tool itself knows best. */
async function readVersion({ client }: Database): Promise<string | undefined> {
  try {
    const { rows } = await client.query<{ version: string }>(
      "select version from cellfleet.store_version order by number desc limit 1",
    );
    return rows[0]?.version;
  } catch (error) {
    // Nothing of ours is installed, an older pack is, or this role may not look.
    if (["3F000", "42P01", "42501"].includes(sqlStateOf(error) ?? "")) return undefined;
    throw error;
  }
}

const asCellError = (error: unknown): CellError =>
  error instanceof CellError
    ? error
    : new CellError("OP_FAILED", error instanceof Error ? error.message : String(error), {
        cause: error,
      });
