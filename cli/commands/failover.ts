/** `cellctl failover …`: take the tenants of a dead cell over. */
import { destructive, type Register } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { registerRestore } from "./salvage.ts";

export const register: Register = (noun, bind) => {
  registerRestore(noun, bind);
  bind(
    destructive(
      noun
        .command("start <cell>")
        .description("give the tenants of a cell that is down to other cells"),
    ),
    async (session, [cell = ""], options) =>
      mutate(session, options, {
        path: "/v1/failovers",
        body: { cell },
        danger: {
          name: cell,
          effect: `The tenants of ${cell} get other owners; what was not replicated is lost.`,
        },
      }),
  );
};
