/** `cellctl tenant …`: tenants, and in which cell each lives. */
import type { Command } from "commander";
import { tenantSchema } from "../../contract/control-api.ts";
import { apiPath } from "../api.ts";
import { sizeOf } from "../declared-size.ts";
import { usage } from "../failures.ts";
import { collect, mutation, type Options, type Register, text, texts } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import { locate } from "../locate.ts";
import { mutate, nextSteps } from "../mutate.ts";
import { sourceOf, targetOf } from "../render/move-ends.ts";
import { resolutionView, tenantView } from "../render/views.ts";
import type { Session } from "../session.ts";
import { registerAlias } from "./tenant-alias.ts";
import { exportCommand, exportTenantRows } from "./tenant-export.ts";
import {
  fromQueryHelp,
  fromQueryOptions,
  importFromQuery,
  isFromQuery,
} from "./tenant-from-query.ts";
import { registerLife } from "./tenant-life.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("ls")
      .description("list tenants")
      .option("--cell <cell>", "only those of this cell")
      .option("--keyspace <keyspace>", "only those of this keyspace")
      .option("--prefix <text>", "only ids that begin with this")
      .option("-l, --label <name=value>", "only those with this label")
      .option("--limit <rows>", "at most this many (default: all)"),
    list,
  );
  bind(
    noun
      .command("get <tenant>")
      .description("one tenant, in full")
      .option("--keyspace <keyspace>", "in this keyspace (default: default)"),
    async (session, [id = ""], options) => {
      const api = await session.api();
      const query = { keyspace: text(options, "keyspace") };
      const tenant = await api.get(apiPath`/v1/tenants/${id}`, tenantSchema, { query });
      await session.out.one(tenant, tenantView);
      return 0;
    },
  );
  bind(
    noun
      .command("locate <tenant>")
      .description("the cell that serves it, registered or not")
      .option("--keyspace <keyspace>", "in this keyspace (default: default)"),
    async (session, [id = ""], options) => {
      const found = await locate(await session.api(), id, text(options, "keyspace"));
      await session.out.one(found, resolutionView);
      const { move } = found;
      if (move !== undefined) {
        const way = `from ${sourceOf(move)} to ${targetOf(move)} (${move.step})`;
        await session.note(`It is part of a move ${way}.  Watch: cellctl move watch ${move.id}`);
      }
      const { unserved } = found;
      if (unserved !== undefined) {
        await session.note(`Nobody serves it: ${unserved.reason}.`);
        await nextSteps(session, unserved.next_steps);
      }
      return 0;
    },
  );
  bind(mutation(createCommand(noun)), create);
  registerLife(noun, bind);
  registerAlias(noun, bind);
  bind(exportCommand(noun), (session, args, options) =>
    exportTenantRows(session, args[0] ?? "", options),
  );
  bind(importCommand(noun), async (session, args, options) => {
    if (isFromQuery(args[0], options)) return importFromQuery(session, options);
    const { importTenants } = await import("../import-tenants.ts");
    return importTenants(session, args[0] ?? "", options);
  });
};

async function list(session: Session, _args: readonly string[], options: Options) {
  const api = await session.api();
  const query = {
    cell: text(options, "cell"),
    keyspace: text(options, "keyspace"),
    prefix: text(options, "prefix"),
    label: text(options, "label"),
  };
  const limit = parseLimit(options);
  await session.out.list(api.pages("/v1/tenants", tenantSchema, { query, limit }), tenantView);
  return 0;
}

const createCommand = (noun: Command): Command =>
  noun
    .command("create <tenant>")
    .description("create a tenant; a cell is chosen by capacity, or named")
    .option("--keyspace <keyspace>", "in this keyspace (default: default)")
    .option("--cell <cell>", "place it here; capacity still holds")
    .option("--region <name>", "it must live in this region")
    .option("--tier <name>", "standard, gold or free")
    .option("--size <bytes>", "declared size, such as 500MB or 2GiB")
    .option("--rps <requests>", "declared requests per second")
    .option("--label <name=value>", "a label; repeat for more", collect);

function create(session: Session, [id = ""]: readonly string[], options: Options): Promise<number> {
  const size = sizeOf(options);
  const labels = Object.fromEntries(texts(options, "label").map(parseLabel));
  const fields = ["keyspace", "cell", "region", "tier"]
    .map((name) => [name, text(options, name)] as const)
    .filter(([, value]) => value !== undefined);
  const body = {
    id,
    ...Object.fromEntries(fields),
    ...(Object.keys(size).length === 0 ? {} : { size }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
  };
  return mutate(session, options, { path: "/v1/tenants", body });
}

function parseLabel(raw: string): [string, string] {
  const at = raw.indexOf("=");
  if (at < 1) throw usage(`--label "${raw}": must be NAME=VALUE`);
  return [raw.slice(0, at), raw.slice(at + 1)];
}

const importCommand = (noun: Command): Command =>
  fromQueryOptions(noun.command("import [file]"))
    .description("create many tenants from CSV, NDJSON (- reads standard input) or a query")
    .option("--format <format>", "csv or ndjson (default: by the file's name)")
    .option("--skip-bad-lines", "apply the good lines; without it one bad line stops all")
    .option("--reason <text>", "why; goes to the audit log")
    .option("--dry-run", "check every line, change nothing")
    .option("--idempotency-key <key>", "repeat a request without doing it twice")
    .option("--wait", "wait until the operation is done (the default)")
    .option("--no-wait", "return as soon as the operation is recorded")
    .addHelpText("after", importHelp)
    .addHelpText("after", fromQueryHelp);

const importHelp = `
Columns of a CSV file, named by its first line; only id is needed:
  id, keyspace, tier, region, cell, bytes, rps, label.NAME   (bytes and rps are numbers)

  id,tier,bytes,label.team
  acme,gold,2000000000,blue
  initrode,standard,,

A line of NDJSON is a tenant as the API takes it: {"id":"acme","size":{"bytes":2000000000}}`;
