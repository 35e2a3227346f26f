/**
 * What follows a failover when its cell has returned: `cell salvage` reads what only it has and takes what is
 * decided about it, `cell wipe` lets it back empty, `failover restore` brings its tenants home.
 */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { z } from "zod";
import { acceptedSchema } from "../../contract/control-api.ts";
import { type Move, startedMovesSchema } from "../../contract/move-api.ts";
import {
  homecomingSchema,
  type Salvage,
  type SalvageLeft,
  type SalvageVerdict,
  salvagedRowSchema,
  salvageSchema,
} from "../../contract/salvage-api.ts";
import { apiPath } from "../api.ts";
import { confirm } from "../confirm.ts";
import { CliError, usage } from "../failures.ts";
import {
  type Bind,
  destructive,
  destructiveAtOnce,
  flag,
  type Options,
  overridable,
  text,
} from "../grammar.ts";
import { mutate, nextSteps, sendChange } from "../mutate.ts";
import { concludeOp, followOp } from "../operations.ts";
import type { View } from "../render/output.ts";
import { counted } from "../render/units.ts";
import type { Session } from "../session.ts";

const decisions = ["show", "apply", "export", "discard", "adopt"] as const;
type Decision = (typeof decisions)[number];
const isDecision = (raw: string): raw is Decision => decisions.some((one) => one === raw);

export function registerSalvage(noun: Command, bind: Bind): void {
  bind(
    destructive(
      noun
        .command("salvage <cell> [decision]")
        .description(
          "read what a returned cell has and nobody else; then show, apply, export or discard it; adopt: keys of which it has the only copy go on from that",
        )
        .option("--failover <id>", "of this failover (default: the cell's last)")
        .option("--tenant <tenant>", "only this tenant's rows")
        .option("-O, --output-file <file>", "write the rows there, one JSON object per line")
        .option(
          "--force",
          "apply also over other rows that the tenants' homes have; deletions never",
        ),
    ),
    salvage,
  );
  bind(
    destructive(
      noun
        .command("wipe <cell>")
        .description("destroy the data of a cell that was failed over, and let it back, empty")
        .option("--discard-unsalvaged", "give up what only it has; say why with --reason"),
    ),
    (session, [id = ""], options) =>
      mutate(session, options, {
        path: apiPath`/v1/cells/${id}/wipe`,
        body: { discardUnsalvaged: flag(options, "discardUnsalvaged") },
        danger: { name: id, effect: `Everything that ${id} still holds is destroyed.` },
      }),
  );
}

async function salvage(
  session: Session,
  [id = "", decision]: readonly string[],
  options: Options,
): Promise<number> {
  if (decision !== undefined && !isDecision(decision)) {
    throw usage(`"${decision}": must be one of ${decisions.join(", ")}`);
  }
  if (decision === undefined) return readCell(session, id, options);
  if (decision === "show") return show(session, id, options);
  if (decision === "adopt") return adopt(session, id, options);
  const tenant = text(options, "tenant");
  if (decision === "export") {
    if (text(options, "outputFile") === undefined) throw usage("export: say where to, by -O FILE");
    if (!flag(options, "dryRun")) await writeRows(session, id, options);
  }
  const whose = tenant === undefined ? "all tenants" : `tenant ${tenant}`;
  return mutate(session, options, {
    path: apiPath`/v1/cells/${id}/salvage/decide`,
    body: {
      decision,
      ...(tenant === undefined ? {} : { tenant }),
      ...(flag(options, "force") ? { force: true } : {}),
    },
    ...(decision === "discard"
      ? { danger: { name: id, effect: `Rows of ${whose} that only ${id} has are given up.` } }
      : {}),
  });
}

/** Nobody but a person can know that it is the database that died, and none of an older backup. */
function adopt(session: Session, id: string, options: Options): Promise<number> {
  return mutate(session, options, {
    path: apiPath`/v1/cells/${id}/salvage/adopt`,
    body: {},
    danger: {
      name: id,
      effect: `Keys of which only ${id} has a copy go on from its database as it is now.`,
    },
  });
}

async function readCell(session: Session, id: string, options: Options): Promise<number> {
  const failover = text(options, "failover");
  const body = failover === undefined ? {} : { failover };
  const change = { path: apiPath`/v1/cells/${id}/salvage`, body };
  if (flag(options, "dryRun") || options["wait"] === false) {
    return mutate(session, options, change);
  }
  const accepted = await sendChange(session, options, change, acceptedSchema);
  await concludeOp(session, await followOp(session, accepted.op));
  // What was found is the answer: a program reads one object.
  return show(session, id, options);
}

async function show(session: Session, id: string, options: Options): Promise<number> {
  if (text(options, "outputFile") !== undefined) await writeRows(session, id, options);
  const api = await session.api();
  const found = await api.get(apiPath`/v1/cells/${id}/salvage`, salvageSchema, {
    query: { tenant: text(options, "tenant") },
  });
  await session.out.one(found, salvageView);
  if (found.stranded > 0) await nextSteps(session, [`cellctl cell salvage ${id} adopt`]);
  if (found.open > 0) {
    await nextSteps(session, [
      `cellctl cell salvage ${id} apply`,
      `cellctl cell salvage ${id} export -O FILE`,
      `cellctl cell salvage ${id} discard --reason TEXT`,
    ]);
  } else if (found.stranded === 0) {
    const verb = found.cellState === "quarantined" ? "cell wipe" : "failover restore";
    await nextSteps(session, [`cellctl ${verb} ${id}`]);
  }
  return 0;
}

/** The file appears when it is whole: half of what was lost must not look like all of it. */
async function writeRows(session: Session, id: string, options: Options): Promise<void> {
  const { open, rename, rm } = await import("node:fs/promises");
  const path = resolve(session.io.cwd, text(options, "outputFile") ?? "");
  const part = `${path}.${session.io.random.hex(6)}.part`;
  const api = await session.api();
  const query = { tenant: text(options, "tenant") };
  let rows = 0;
  try {
    const file = await open(part, "wx", 0o600);
    try {
      const pages = api.pages(apiPath`/v1/cells/${id}/salvage/rows`, salvagedRowSchema, { query });
      for await (const { items } of pages) {
        rows += items.length;
        await file.write(items.map((row) => `${JSON.stringify(row)}\n`).join(""));
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (cause) {
    await rm(part, { force: true });
    if (!(cause instanceof Error && "code" in cause && "syscall" in cause)) throw cause;
    throw new CliError("FILE_UNREADABLE", `cannot write ${path}: ${cause.message}`, { cause });
  }
  await session.note(`${counted(rows, "row")} in ${path}: personal data, keep it so.`);
}

const salvageView: View<Salvage> = {
  id: ({ id }) => id,
  columns: [{ head: "ROWS", cell: ({ rows }) => String(rows) }],
  details: (found) => [
    ["salvage", found.id],
    ["cell", found.cell],
    ["failover", found.failover],
    ["state", `${found.state}: ${found.headline}`],
    ...(found.stranded === 0
      ? []
      : [["keys", `${found.stranded} that nobody else has a copy of`] as const]),
    ["rows", `${found.rows}, of which nobody has decided about ${found.open}`],
    [
      "tenants",
      found.tenants.map(
        ({ tenant, rows, free, same, conflict, homeless, open }) =>
          `${tenant === "" ? "(none)" : tenant}  ${counted(rows, "row")}: ${free} free, ${same} there already, ${conflict} in conflict, ${homeless} without a home; ${open} open`,
      ),
    ],
    ["open", found.left.map(leftText)],
  ],
};

const verdictWords: Readonly<Record<SalvageVerdict, string>> = {
  free: "free",
  same: "there already",
  conflict: "in conflict",
  homeless: "without a home",
};

const leftText = ({ tenant, table, kind, verdict, note, rows }: SalvageLeft): string =>
  `${tenant === "" ? "(none)" : tenant}  ${table}  ${counted(rows, kind)} ${verdictWords[verdict]}${note === "" ? "" : `: ${note}`}`;

/** Keys that one call asks to move. */
const batch = 500;

export function registerRestore(noun: Command, bind: Bind): void {
  bind(
    overridable(
      destructiveAtOnce(
        noun
          .command("restore <cell>")
          .description("bring the tenants that a failover took from a cell home, by live moves"),
      ),
    ),
    restore,
  );
}

async function restore(
  session: Session,
  [id = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const api = await session.api();
  const home = await api.get(apiPath`/v1/cells/${id}/homecoming`, homecomingSchema);
  for (const { key, state } of home.unmovable) {
    await session.note(`${key} stays where it is: it is ${state}.`);
  }
  if (home.keys.length === 0) {
    const text = home.moving > 0 ? `${home.moving} are on their way` : "none is elsewhere";
    await session.note(`No tenant of ${id} waits to come home: ${text}.`);
    return printStarted(session, [], []);
  }
  const effect = `${counted(home.keys.length, "key")} move to ${id}, live, one after the other.`;
  if (!flag(options, "dryRun")) {
    await confirm(session, { name: id, effect }, text(options, "confirm"));
  }
  if (flag(options, "dryRun")) {
    await session.note(`would move ${counted(home.keys.length, "key")} to ${id}`);
    await session.note("Nothing was changed: this was a dry run.");
    if (session.out.structured) await session.out.one(home, homeView);
    return 0;
  }
  const begun: Move[] = [];
  for (const keys of batches(home.keys)) {
    const body = { keys, to: id, together: 20, options: { switch: "auto" } };
    const change = { path: "/v1/moves", body };
    const { idempotencyKey: _one, ...each } = options;
    const started = await sendChange(session, each, change, startedMovesSchema);
    begun.push(...started.items);
  }
  await session.note(`${counted(begun.length, "move")} to ${id} begun.`);
  const next = ["cellctl move ls --state running", `cellctl failover restore ${id}`];
  await nextSteps(session, next);
  return printStarted(session, begun, next);
}

const homeView: View<z.infer<typeof homecomingSchema>> = {
  id: ({ keys }) => keys.join(" "),
  columns: [],
};

/** For programs: people have read it already. */
async function printStarted(
  session: Session,
  items: readonly Move[],
  next_steps: readonly string[],
): Promise<number> {
  const { format, structured } = session.out;
  if (structured || format === "name") await session.out.one({ items, next_steps }, movesView);
  return 0;
}
const movesView: View<{ readonly items: readonly Move[] }> = {
  id: ({ items }) => items.map(({ id }) => id).join("\n"),
  columns: [],
};

/** Of one keyspace each, as moves are. */
function batches(keys: readonly string[]): string[][] {
  const groups = new Map<string, string[][]>();
  for (const key of keys) {
    const [keyspace = ""] = key.split("/");
    const lists = groups.get(keyspace) ?? [[]];
    const last = lists.at(-1);
    if (last === undefined || last.length >= batch) lists.push([key]);
    else last.push(key);
    groups.set(keyspace, lists);
  }
  return [...groups.values()].flat().filter((list) => list.length > 0);
}
