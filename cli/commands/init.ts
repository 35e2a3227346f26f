/** `cellctl init`: writes a cellfleet.yaml for the application in this folder, by asking. */
import { collect, type Register } from "../grammar.ts";

export const register: Register = (noun, bind) => {
  noun
    .option("--name <name>", "what the application is called")
    .option("--service <name=command>", "a service that listens on PORT; repeat for more", collect)
    .option("--worker <name=command>", "a process that listens nowhere; repeat for more", collect)
    .option("--health <[name=]path>", "what is asked of a service (default: /)", collect)
    .option("--instances <name=count>", "processes of it in each cell (default: 1)", collect)
    .option("--route <name=prefix>", "requests below this path go to this service", collect)
    .option(
      "--tenant-key <source>",
      "header:NAME, host:{tenant}.DOMAIN, path:/t/{tenant}, cookie:NAME or query:NAME; repeat for more",
      collect,
    )
    .option("--tenant <id>", "made by cellctl dev; repeat for more", collect)
    .option("--migrate <command>", "brings the database to the newest schema")
    .option("--no-store", "the application keeps no data")
    .option("--key-column <column>", "that names the tenant in the tables (default: guessed)")
    .option(
      "--database-url <ref>",
      "your database: proposes cellfleet.schema.yaml; env:NAME, file:PATH or exec:COMMAND",
    )
    .option("--force", "replace files that are there");
  bind(noun, async (session, _args, options) => {
    const { init } = await import("../init.ts");
    return init(session, options);
  });
};
