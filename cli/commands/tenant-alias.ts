/** `cellctl tenant alias …`: names by which routers find a tenant, such as its own domain. */
import { claimNamespaceSchema, claimSchema } from "../../contract/claims-api.ts";
import { readClaimName } from "../claim-name.ts";
import { usage } from "../failures.ts";
import { mutation, type Options, type Register, text } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import type { Page } from "../render/output.ts";
import { claimView } from "../render/views-claim.ts";
import type { Session } from "../session.ts";

export const registerAlias: Register = (noun, bind) => {
  const alias = noun
    .command("alias")
    .description("names by which routers find it: a domain, an API key, an account");
  bind(
    alias.command("ls <tenant>").description("its names, as hashes"),
    async (session, [tenant = ""]) => {
      const names = await routedNames(session);
      await session.out.list(
        (async function* () {
          for await (const page of pagesOf(session, tenant)) {
            yield { ...page, items: page.items.filter(({ namespace }) => names.has(namespace)) };
          }
        })(),
        claimView,
      );
      return 0;
    },
  );
  bind(
    mutation(
      alias
        .command("add <tenant> <name>")
        .description("NAME is NAMESPACE:NAME; done when all live routers know it")
        .option("--keyspace <keyspace>", "in this keyspace (default: where it is registered)"),
    ),
    (session, args, options) => change(session, args, options, "/v1/claims"),
  );
  bind(
    mutation(
      alias
        .command("rm <tenant> <name>")
        .description("done when no live router knows it any more")
        .option("--keyspace <keyspace>", "in this keyspace (default: where it is registered)"),
    ),
    (session, args, options) => change(session, args, options, "/v1/claims/release"),
  );
};

async function* pagesOf(session: Session, tenant: string) {
  const api = await session.api();
  const pages: AsyncGenerator<Page<ReturnType<typeof claimSchema.parse>>> = api.pages(
    "/v1/claims",
    claimSchema,
    { query: { tenant } },
  );
  yield* pages;
}

async function routedNames(session: Session): Promise<ReadonlySet<string>> {
  const api = await session.api();
  const names = new Set<string>();
  for await (const { items } of api.pages("/v1/claim-namespaces", claimNamespaceSchema)) {
    for (const { name, routed } of items) if (routed) names.add(name);
  }
  return names;
}

async function change(
  session: Session,
  [tenant = "", raw = ""]: readonly string[],
  options: Options,
  path: string,
): Promise<number> {
  const name = await readClaimName(session, raw);
  const routed = await routedNames(session);
  if (!routed.has(name.namespace)) {
    throw usage(
      `routers are not told names of ${name.namespace}; an alias is one of ${[...routed].join(", ")}`,
      "cellctl claim namespaces",
      `cellctl claim reserve ${name.namespace}:NAME --tenant ${tenant}`,
    );
  }
  const keyspace = text(options, "keyspace");
  const body = { ...name, tenant, ...(keyspace === undefined ? {} : { keyspace }) };
  return mutate(session, options, { path, body });
}
