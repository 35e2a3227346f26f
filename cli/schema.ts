/** What the verbs of `cellctl schema` do: options checked, the room asked, its events told. */
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { CellError } from "../contract/errors.ts";
import { parseCellId } from "../contract/ids.ts";
import {
  databaseUrl,
  loadManifest,
  loadSchemaCheck,
  loadSchemaInit,
  loadSchemaInstall,
  loadSchemaScript,
  loadSchemaUninstall,
  withDatabase,
} from "./adoption.ts";
import { CliError, usage } from "./failures.ts";
import { flag, type Options, text, texts } from "./grammar.ts";
import { adviceText, findingsText, findingView, planView, tellSteps } from "./render/schema.ts";
import { counted } from "./render/units.ts";
import type { Session } from "./session.ts";

const manifestDefault = "cellfleet.schema.yaml";

/** Ctrl-C: what is done stays done, and is found done the next time. */
async function interruptible<T>(session: Session, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!session.interrupted().aborted || error instanceof CellError) throw error;
    throw new CliError("DETACHED", "Interrupted; the steps that were done stay done", {
      nextSteps: ["run the same command again: it goes on where it stopped"],
    });
  }
}

export async function init(session: Session, options: Options): Promise<number> {
  const { initManifest } = await loadSchemaInit();
  const url = await databaseUrl(session, options);
  const { text: yaml, proposal } = await withDatabase(url, ({ client }) =>
    initManifest(client, {
      keyColumn: text(options, "keyColumn"),
      store: text(options, "store") ?? "default",
      keyspace: text(options, "keyspace") ?? "default",
    }),
  );
  if (session.out.structured) {
    await session.out.one({ ...proposal, manifest: yaml }, { id: () => "manifest", columns: [] });
    return 0;
  }
  const out = text(options, "out");
  if (out === undefined) {
    await session.out.text(yaml);
    return 0;
  }
  await writeNew(resolve(session.io.cwd, out), yaml, flag(options, "overwrite"));
  const undecided = proposal.tables.filter((table) => table.class === "undecided").length;
  await session.note(
    undecided === 0
      ? `Wrote ${out}. Read it, then: cellctl schema check --manifest ${out} --database-url …`
      : `Wrote ${out}. ${counted(undecided, "table")} in it to be classed by you: look for "Undecided".`,
  );
  return 0;
}

async function writeNew(path: string, content: string, overwrite: boolean): Promise<void> {
  try {
    await writeFile(path, content, { flag: overwrite ? "w" : "wx" });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const why = code === "EEXIST" ? "is there already" : "cannot be written";
    throw new CliError("FILE_UNREADABLE", `${path} ${why}`, {
      cause: error,
      nextSteps: code === "EEXIST" ? ["--overwrite, or another name with --out"] : [],
    });
  }
}

async function manifestOf(session: Session, options: Options) {
  const { readManifest } = await loadManifest();
  return readManifest(resolve(session.io.cwd, text(options, "manifest") ?? manifestDefault));
}

export async function check(session: Session, options: Options): Promise<number> {
  const { checkSchema } = await loadSchemaCheck();
  const manifest = await manifestOf(session, options);
  const url = await databaseUrl(session, options);
  const appRole = text(options, "appRole");
  const verdict = await withDatabase(url, ({ client }) => checkSchema(client, manifest, appRole));
  const yours = verdict.items.filter(({ mendedBy }) => mendedBy === "you");
  const open = verdict.installed ? verdict.items : yours;
  const faults = open.filter(({ severity }) => severity === "fault" || flag(options, "strict"));
  if (session.out.structured || session.out.format === "name") {
    await session.out.list(onePage(verdict.items), findingView);
  } else {
    await session.out.text(findingsText(verdict, session.out.format === "wide"));
  }
  if (appRole === undefined) {
    await session.note("The application's role was not judged; name it with --app-role.");
  }
  if (faults.length === 0) return 0;
  throw new CellError(
    "SCHEMA_UNFIT",
    `${counted(faults.length, flag(options, "strict") ? "finding" : "fault")} found`,
    {
      nextSteps: [
        ...(yours.length > 0 ? ["mend what is yours with the statements above"] : []),
        ...(yours.length < verdict.items.length
          ? ["cellctl schema install --dry-run …, then without --dry-run, mends the others"]
          : []),
      ],
      details: { findings: faults.length },
    },
  );
}

export async function install(session: Session, options: Options): Promise<number> {
  const room = await loadSchemaInstall();
  const { planScript } = await loadSchemaScript();
  const manifest = await manifestOf(session, options);
  const cell = cellOf(options);
  const stage = stageOf(options);
  const url = await databaseUrl(session, options);
  const tell = tellSteps(session.progress);
  const advice = await withDatabase(url, async (database) => {
    const roles = await room.chooseRoles(database.client, manifest, {
      appRole: text(options, "appRole"),
      appOwnerRole: text(options, "appOwnerRole"),
      agentRole: text(options, "agentRole"),
      readerRole: text(options, "readerRole"),
      moverRole: text(options, "moverRole"),
    });
    const unique = texts(options, "replaceUnique");
    const replaceUnique = unique.includes("all") ? ("all" as const) : unique;
    const asked = { database, manifest, cell, stage, pack: { roles }, replaceUnique };
    for (const one of await room.otherReaders(database.client, manifest, roles)) {
      await session.note(`Warning: ${one}`);
    }
    if (flag(options, "dryRun")) {
      const plan = await room.planInstallation(asked, { dry: true });
      if (session.out.structured) await session.out.one(plan, planView);
      else await session.out.text(planScript(plan, room.packScript(roles, cell, stage)));
      return undefined;
    }
    const found = await interruptible(session, () =>
      room.runInstallation({ ...asked, ...surroundings(session), emit: tell }),
    );
    // Of a pack that was there, the stage is what its cell has come to, whatever was asked for.
    const { pack } = await room.readAppCatalog(database.client);
    await session.progress.done("ok", `installed for ${cell}, in stage ${pack.stage ?? stage}`);
    if (roles.moverRole !== undefined) {
      await session.note(
        `What ${roles.moverRole} still lacks: cellctl check --database-url REF --role mover, with its own login`,
      );
    }
    return found;
  });
  if (advice === undefined) return 0;
  if (session.out.structured) await session.out.one({ steps: [], advice }, planView);
  else if (advice.length > 0) await session.note(adviceText(advice));
  return 0;
}

const surroundings = (session: Session) => ({
  clock: session.io.clock,
  random: session.io.random,
  signal: session.interrupted(),
});

function cellOf(options: Options): string {
  const raw = text(options, "cell");
  if (raw === undefined) throw usage("--cell is missing: the cell that this database belongs to");
  const cell = parseCellId(raw);
  if (cell === undefined) throw usage(`--cell "${raw}": is no id of a cell`);
  return cell;
}

function stageOf(options: Options): "observe" | "enforce" {
  const raw = text(options, "stage") ?? "observe";
  if (raw === "observe" || raw === "enforce") return raw;
  throw usage(`--stage "${raw}": must be observe or enforce`);
}

export async function uninstall(session: Session, options: Options): Promise<number> {
  const room = await loadSchemaUninstall();
  const { planScript } = await loadSchemaScript();
  const url = await databaseUrl(session, options);
  const stays = await withDatabase(url, async (database) => {
    const asked = {
      database,
      dropAdded: flag(options, "dropAdded"),
      force: flag(options, "force"),
    };
    if (flag(options, "dryRun")) {
      const plan = { ...(await room.planRemoval(asked)), advice: [] };
      if (session.out.structured) await session.out.one(plan, planView);
      else await session.out.text(planScript(plan, ""));
      return undefined;
    }
    return interruptible(session, () =>
      room.runRemoval({ ...asked, ...surroundings(session), emit: tellSteps(session.progress) }),
    );
  });
  if (stays === undefined) return 0;
  await session.progress.done("ok", "uninstalled");
  if (session.out.structured) await session.out.one({ stays }, { id: () => "stays", columns: [] });
  else await session.note(["What stays:", ...stays.map((one) => `  ${one}`)].join("\n"));
  return 0;
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}
