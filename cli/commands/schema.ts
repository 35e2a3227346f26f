/** `cellctl schema …`: makes the schema of an application's own database keep tenants apart. */
import type { Command } from "commander";
import type { Register } from "../grammar.ts";
import { collect } from "../grammar.ts";

export const register: Register = (noun, bind) => {
  bind(
    database(noun.command("init"))
      .description("propose a manifest from the tables that are there")
      .option("-O, --out <file>", "write it here instead of to standard output")
      .option("--key-column <column>", "the column that names the tenant (default: guessed)")
      .option("--store <name>", "which of the cell's stores this is (default: default)")
      .option("--keyspace <name>", "of these tenants (default: default)")
      .option("--overwrite", "even if the file is there"),
    async (session, _args, options) => (await import("../schema.ts")).init(session, options),
  );
  bind(
    manifest(database(noun.command("check")))
      .description("what keeps the schema from keeping tenants apart, each with what mends it")
      .option(
        "--app-role <role>",
        "the role that the application logs in as; else it is not judged",
      )
      .option("--strict", "fail for risks too, which are harmless while there is one cell"),
    async (session, _args, options) => (await import("../schema.ts")).check(session, options),
  );
  bind(
    installOptions(manifest(database(noun.command("install"))))
      .description("guard, visibility, ids and missing key columns, beside the running application")
      .addHelpText("after", installHelp),
    async (session, _args, options) => (await import("../schema.ts")).install(session, options),
  );
  bind(
    database(noun.command("uninstall"))
      .description("take it all off again; what was added to your tables stays unless asked for")
      .option("--drop-added", "drop columns and indexes that install added, too")
      .option("--force", "although the cell is not in stage pass-through")
      .option("--dry-run", "print the SQL, change nothing"),
    async (session, _args, options) => (await import("../schema.ts")).uninstall(session, options),
  );
  bind(
    noun
      .command("apply")
      .description("run your own migration tool, cell by cell, and record the version")
      .option("--command <cmd>", "migrates the database of DATABASE_URL; run by /bin/sh")
      .option("--schema-version <version>", "recorded in each cell; cells that have it are skipped")
      .option("--cells <cells>", "all, or names with commas between (default: all)")
      .option("--canary <cell>", "this one first, alone")
      .option("--ring-size <count>", "then so many side by side (default: 1)")
      .option("--store <name>", "which of the cells' stores (default: default)")
      .option("--manifest <file>", "puts new tables under the guard, refuses unclassed ones")
      .option("--database-url <cell=ref>", "instead of what the fleet knows; repeat", collect)
      .option("--url-variable <name>", "that carries the address (default: DATABASE_URL)")
      .option("--dry-run", "print the order, run nothing"),
    async (session, _args, options) => (await import("../schema-apply.ts")).apply(session, options),
  );
};

const database = (command: Command): Command =>
  command.option("--database-url <ref>", "env:NAME, file:PATH or exec:COMMAND");
const manifest = (command: Command): Command =>
  command.option("--manifest <file>", "what each table is (default: cellfleet.schema.yaml)");

const installOptions = (command: Command): Command =>
  command
    .option("--cell <cell>", "the cell that this database belongs to")
    .option("--stage <stage>", "observe: count, refuse nothing; enforce (default: observe)")
    .option("--app-role <role>", "the role that the application logs in as")
    .option("--app-owner-role <role>", "owns the tables (default: their owner)")
    .option("--agent-role <role>", "for the cell's agent (default: cellfleet_agent)")
    .option("--reader-role <role>", "for cellctl query (default: cellfleet_reader)")
    .option("--mover-role <role>", "logs in to move tenants to other cells (default: none)")
    .option(
      "--replace-unique <name>",
      "SCHEMA.TABLE.NAME, or all: make it unique per tenant; repeat for more",
      collect,
    )
    .option("--dry-run", "print the SQL, change nothing");

const installHelp = `
No statement waits for a lock longer than 50 ms, because whoever comes later would wait behind it; it
tries again after a pause. Cut off anywhere, the same command goes on where it stopped.`;
