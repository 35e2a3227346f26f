/** `cellctl ring …`: groups of cells that get changes one after the other. */
import { ringSchema } from "../../contract/routing-api.ts";
import { apiPath } from "../api.ts";
import { mutation, type Register } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { ringView } from "../render/views-flag.ts";

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list rings and the cells in them"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/rings", ringSchema), ringView);
    return 0;
  });
  bind(
    mutation(noun.command("set <ring> <cells...>").description("say which cells are in a ring")),
    async (session, [name = "", ...cells], options) =>
      mutate(session, options, {
        method: "PUT",
        path: apiPath`/v1/rings/${name}`,
        body: { cells },
      }),
  );
  bind(
    mutation(noun.command("rm <ring>").description("forget a ring; its cells stay as they are")),
    async (session, [name = ""], options) =>
      mutate(session, options, { method: "DELETE", path: apiPath`/v1/rings/${name}` }),
  );
};
