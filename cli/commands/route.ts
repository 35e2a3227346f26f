/** `cellctl route …`: where a request would go, and tenants that stand above their container. */
import type { Command } from "commander";
import { overrideSchema } from "../../contract/control-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { type Bind, destructive, flag, mutation, type Register, text } from "../grammar.ts";
import { resolveRoute } from "../locate.ts";
import { mutate } from "../mutate.ts";
import { overrideView, resolutionTraceView, resolutionView } from "../render/views.ts";
import { printTable } from "../router-table.ts";
import { register as lint } from "./route-lint.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("resolve")
      .description("the cell that a request would go to")
      .option("--tenant <tenant>", "of this tenant")
      .option("--keyspace <keyspace>", "in this keyspace (default: default)")
      .option("--host <host>", "for this host name")
      .option("--path <path>", "for this path")
      .option("--explain", "say how it was found"),
    async (session, _args, options) => {
      const question = {
        tenant: text(options, "tenant"),
        keyspace: text(options, "keyspace"),
        host: text(options, "host"),
        path: text(options, "path"),
      };
      if (Object.values(question).every((value) => value === undefined)) {
        throw usage("name what to resolve: --tenant, --host or --path");
      }
      const found = await resolveRoute(await session.api(), question);
      const view = flag(options, "explain") ? resolutionTraceView : resolutionView;
      await session.out.one(found, view);
      return 0;
    },
  );
  bind(
    noun
      .command("table")
      .description("the routing table that a router serves from, asked of the router itself")
      .option("--router <router>", "of this router (default: the first live one)"),
    async (session, _args, options) => printTable(session, text(options, "router")),
  );
  overrides(noun, bind);
  lint(noun, bind);
};

function overrides(noun: Command, bind: Bind): void {
  const override = noun
    .command("override")
    .description("tenants placed on their own, above their container");
  bind(override.command("ls").description("list overrides"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/overrides", overrideSchema), overrideView);
    return 0;
  });
  bind(
    mutation(
      override
        .command("add <tenant>")
        .description("place a tenant of a slots or range keyspace on its own")
        .requiredOption("--keyspace <keyspace>", "the keyspace")
        .requiredOption("--cell <cell>", "the cell"),
    ),
    async (session, [tenant = ""], options) => {
      const body = { tenant, keyspace: text(options, "keyspace"), cell: text(options, "cell") };
      return mutate(session, options, { path: "/v1/overrides", body });
    },
  );
  bind(
    destructive(
      override
        .command("rm <override>")
        .description(
          "give the tenant back to its container; OVERRIDE is a key such as users/tenant/acme",
        ),
    ),
    async (session, [id = ""], options) =>
      mutate(session, options, { method: "DELETE", path: apiPath`/v1/overrides/${id}` }),
  );
}
