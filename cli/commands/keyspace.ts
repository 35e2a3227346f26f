/** `cellctl keyspace …`: sets of tenants with one mapping strategy. */
import type { Command } from "commander";
import { keyspaceSchema } from "../../contract/control-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { type Bind, collect, mutation, type Register, text, texts } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { keyspaceView } from "../render/views.ts";

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list keyspaces"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/keyspaces", keyspaceSchema), keyspaceView);
    return 0;
  });
  bind(noun.command("get <keyspace>").description("one keyspace"), async (session, [name = ""]) => {
    const api = await session.api();
    await session.out.one(
      await api.get(apiPath`/v1/keyspaces/${name}`, keyspaceSchema),
      keyspaceView,
    );
    return 0;
  });
  bind(
    mutation(
      noun
        .command("create <keyspace>")
        .description("create a keyspace")
        .requiredOption("--strategy <name>", "directory, range or slots")
        .option("--slots <count>", "strategy slots: how many, a power of two")
        .option("--split-at <id>", "strategy range: where a range begins; repeat for more", collect)
        .option("--guard-mode <mode>", "strict or row (default: strict)"),
    ),
    async (session, [name = ""], options) => {
      const strategy = text(options, "strategy");
      const slots = slotsOf(strategy, text(options, "slots"));
      const splitAt = texts(options, "splitAt");
      const guardMode = text(options, "guardMode");
      const body = {
        name,
        strategy,
        ...(slots === undefined ? {} : { slotCount: slots }),
        ...(splitAt.length === 0 ? {} : { splitAt }),
        ...(guardMode === undefined ? {} : { guardMode }),
      };
      return mutate(session, options, { path: "/v1/keyspaces", body });
    },
  );
  registerSet(noun, bind);
};

function registerSet(noun: Command, bind: Bind): void {
  bind(
    mutation(
      noun
        .command("set <keyspace>")
        .description("change a keyspace in which nothing is placed yet")
        .requiredOption("--guard-mode <mode>", "strict or row"),
    ),
    async (session, [name = ""], options) =>
      mutate(session, options, {
        method: "PUT",
        path: apiPath`/v1/keyspaces/${name}`,
        body: { guardMode: text(options, "guardMode") },
      }),
  );
}

/** The control plane would name the field of its API, which nobody here has typed. */
function slotsOf(strategy: string | undefined, raw: string | undefined): number | undefined {
  if (raw === undefined) {
    if (strategy !== "slots") return undefined;
    throw usage("--strategy slots needs --slots: how many, a power of two");
  }
  if (!/^\d+$/.test(raw)) throw usage(`--slots "${raw}": must be a number`);
  if (!isPowerOfTwo(Number(raw))) throw usage(`--slots "${raw}": must be a power of two`);
  if (strategy === "slots") return Number(raw);
  throw usage(`--slots goes with --strategy slots, not with ${strategy}`);
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));
