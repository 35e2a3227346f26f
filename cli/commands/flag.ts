/** `cellctl flag …`: feature flags by tenant, cell and ring; the application reads them in one header. */
import { flagSchema } from "../../contract/routing-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { collect, flag, mutation, type Register, texts } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { flagView } from "../render/views-flag.ts";

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list flags and for whom they are on"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/flags", flagSchema), flagView);
    return 0;
  });
  bind(
    mutation(
      noun
        .command("set <flag>")
        .description("say for whom a flag is on; what it said before is replaced")
        .option("--everywhere", "for everybody")
        .option("--tenant <tenant>", "for this tenant (acme, or KEYSPACE/acme); repeat", collect)
        .option("--cell <cell>", "for all tenants of this cell; repeat", collect)
        .option("--ring <ring>", "for the cells of this ring; repeat", collect)
        .option("--nobody", "for nobody, and keep its name"),
    ),
    async (session, [name = ""], options) => {
      const [tenants, cells, rings] = ["tenant", "cell", "ring"].map((one) => texts(options, one));
      const everywhere = flag(options, "everywhere");
      const body = {
        ...(everywhere ? { everywhere } : {}),
        ...(tenants?.length ? { tenants } : {}),
        ...(cells?.length ? { cells } : {}),
        ...(rings?.length ? { rings } : {}),
      };
      if (Object.keys(body).length === 0 && !flag(options, "nobody")) {
        throw usage("say for whom: --everywhere, --tenant, --cell, --ring or --nobody");
      }
      return mutate(session, options, { method: "PUT", path: apiPath`/v1/flags/${name}`, body });
    },
  );
  bind(
    mutation(noun.command("rm <flag>").description("forget a flag: it is off for everybody")),
    async (session, [name = ""], options) =>
      mutate(session, options, { method: "DELETE", path: apiPath`/v1/flags/${name}` }),
  );
};
