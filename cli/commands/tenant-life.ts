/** `cellctl tenant suspend|resume|delete|receipt`: what happens to a tenant after its creation. */
import type { Command } from "commander";
import { type Receipt, receiptSchema } from "../../contract/adoption-api.ts";
import { apiPath } from "../api.ts";
import { destructive, mutation, type Options, type Register, text } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { receiptView } from "../render/views-adoption.ts";
import type { Session } from "../session.ts";

export const registerLife: Register = (noun, bind) => {
  bind(
    destructive(
      ofKeyspace(
        noun.command("suspend <tenant>").description("refuse it everywhere until it is resumed"),
      ),
    ),
    change("suspend", (id) => `Requests of tenant ${id} are refused until it is resumed.`),
  );
  bind(
    mutation(
      ofKeyspace(
        noun.command("resume <tenant>").description("serve a suspended tenant again, where it was"),
      ),
    ),
    change("resume"),
  );
  bind(
    destructive(
      ofKeyspace(
        noun
          .command("delete <tenant>")
          .description("remove every row of it in every cell, its names, and its id, for good"),
      ),
    ),
    remove,
  );
  bind(
    noun
      .command("receipt <tenant>")
      .description("what was removed where, of a tenant that is or is being deleted"),
    async (session, [id = ""]) => {
      await session.out.one(await receiptOf(session, id), receiptView);
      return 0;
    },
  );
};

const ofKeyspace = (command: Command): Command =>
  command.option("--keyspace <keyspace>", "in this keyspace (default: where it is registered)");

const bodyOf = (options: Options) => {
  const keyspace = text(options, "keyspace");
  return keyspace === undefined ? {} : { keyspace };
};

const change =
  (action: "suspend" | "resume", effect?: (id: string) => string) =>
  (session: Session, [id = ""]: readonly string[], options: Options): Promise<number> =>
    mutate(session, options, {
      path: `${apiPath`/v1/tenants/${id}`}/${action}`,
      body: bodyOf(options),
      ...(effect === undefined ? {} : { danger: { name: id, effect: effect(id) } }),
    });

async function remove(
  session: Session,
  [id = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const code = await mutate(session, options, {
    method: "DELETE",
    path: apiPath`/v1/tenants/${id}`,
    body: bodyOf(options),
    danger: {
      name: id,
      effect: `Tenant ${id}: every row in every cell, its names and its id will be gone for good.`,
    },
  });
  const isOver = options["dryRun"] !== true && options["wait"] !== false;
  // Programs find the receipt in the operation's result; people want to see it.
  if (isOver && !session.out.structured && session.out.format !== "name") {
    await session.out.one(await receiptOf(session, id), receiptView);
  }
  return code;
}

async function receiptOf(session: Session, id: string): Promise<Receipt> {
  const api = await session.api();
  return api.get(apiPath`/v1/tenants/${id}/receipt`, receiptSchema);
}
