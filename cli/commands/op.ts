/** `cellctl op …`: the operations that the control plane runs. */
import { opSchema, opStates } from "../../contract/control-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { type Register, text } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import { concludeOp, followOp } from "../operations.ts";
import { opView } from "../render/views-op.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("ls")
      .description("list operations, newest first")
      .option("--state <state>", opStates.join(", "))
      .option("--kind <kind>", "only of this kind, such as cell.create")
      .option("--object <id>", "only about this object")
      .option("--limit <rows>", "at most this many (default: all)"),
    async (session, _args, options) => {
      const state = text(options, "state");
      if (state !== undefined && !(opStates as readonly string[]).includes(state)) {
        throw usage(`--state "${state}": must be one of ${opStates.join(", ")}`);
      }
      const api = await session.api();
      const query = { state, kind: text(options, "kind"), object: text(options, "object") };
      const limit = parseLimit(options);
      await session.out.list(api.pages("/v1/ops", opSchema, { query, limit }), opView);
      return 0;
    },
  );
  bind(
    noun.command("show <op>").alias("get").description("one operation, with its steps"),
    async (session, [id = ""]) => {
      const api = await session.api();
      await session.out.one(await api.get(apiPath`/v1/ops/${id}`, opSchema), opView);
      return 0;
    },
  );
  bind(
    noun
      .command("watch <op>")
      .description("follow an operation to its end (Ctrl-C only stops watching)"),
    async (session, [id = ""]) => {
      const api = await session.api();
      const op = await followOp(session, await api.get(apiPath`/v1/ops/${id}`, opSchema));
      await concludeOp(session, op);
      await session.out.one(op, opView);
      return 0;
    },
  );
};
