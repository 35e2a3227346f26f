/** `cellctl explain …`: an error code, a kind of object, why a tenant is where it is, what became of a request. */
import { opSchema } from "../../contract/control-api.ts";
import { explanationSchema } from "../../contract/explanation.ts";
import { apiPath } from "../api.ts";
import { sizeOf } from "../declared-size.ts";
import { explainRequest } from "../explain-request.ts";
import { type Explained, explainWord } from "../explanations.ts";
import { usage } from "../failures.ts";
import { collect, type Options, type Register, text, texts } from "../grammar.ts";
import type { View } from "../render/output.ts";
import { explanationView } from "../render/views.ts";
import type { Session } from "../session.ts";

const explainedView: View<Explained> = {
  id: ({ id }) => id,
  columns: [{ head: "WORD", cell: ({ id }) => id }],
  details: ({ id, kind, text: sentence, facts }) => [
    [kind, id],
    ["meaning", sentence],
    ...Object.entries(facts).map(([name, fact]) => [name, fact] as const),
  ],
};

export const register: Register = (noun, bind) => {
  bind(
    noun
      .argument(
        "<word>",
        "an error code, a kind (cell, tenant, op …), a field (cell.lease), `placement` or `request`",
      )
      .argument("[name]", "after `placement`: the tenant, existing or not; after `request`: its id")
      .option("--keyspace <keyspace>", "placement: in this keyspace (default: default)")
      .option("--tier <name>", "placement, what if: of this tier")
      .option("--region <name>", "placement, what if: in this region")
      .option("--cell <cell>", "placement, what if: asked for by name")
      .option("--size <bytes>", "placement, what if: of this size, such as 2GiB")
      .option("--rps <requests>", "placement, what if: with so many requests per second")
      .option(
        "--router-admin <url>",
        "request: ask this router, by its admin port (repeatable; default: all that the fleet knows)",
        collect,
      ),
    async (session, [word = "", name], options) => {
      if (word === "request") {
        if (name !== undefined) return explainRequest(session, name, texts(options, "routerAdmin"));
        throw usage("which request?", "cellctl explain request ID   (the answer's x-request-id)");
      }
      if (name !== undefined && word !== "placement") {
        throw usage(`"${word}" takes nothing after it`, "cellctl explain placement TENANT");
      }
      if (name !== undefined) return explainPlacement(session, name, options);
      await session.out.one(
        word.startsWith("op_") ? await explainOp(session, word) : explainWord(word),
        explainedView,
      );
      return 0;
    },
  );
};

/** An operation by its id: what its kind is, and where this one stands. */
async function explainOp(session: Session, id: string): Promise<Explained> {
  const api = await session.api();
  const { kind, step, headline } = await api.get(apiPath`/v1/ops/${id}`, opSchema);
  const { facts, ...known } = explainWord(kind === "tenant.move" ? "move" : "op");
  return { ...known, facts: { [id]: `${step}: ${headline}`, ...facts } };
}

async function explainPlacement(
  session: Session,
  tenant: string,
  options: Options,
): Promise<number> {
  const api = await session.api();
  const query = {
    keyspace: text(options, "keyspace"),
    tier: text(options, "tier"),
    region: text(options, "region"),
    cell: text(options, "cell"),
    ...sizeOf(options),
  };
  const path = apiPath`/v1/tenants/${tenant}/placement/explain`;
  await session.out.one(await api.get(path, explanationSchema, { query }), explanationView);
  return 0;
}
