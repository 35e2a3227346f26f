/** `cellctl standby …`: which cell keeps which buckets of which other cell, and how far behind. */
import type { Command } from "commander";
import { dryRunSchema, list } from "../../contract/control-api.ts";
import { standbySchema } from "../../contract/standby-api.ts";
import { protectionSchema, standbyChangedSchema } from "../../contract/standby-requests.ts";
import { apiPath } from "../api.ts";
import { storesOf } from "../cell-stores.ts";
import { confirm } from "../confirm.ts";
import { usage } from "../failures.ts";
import {
  collect,
  destructiveAtOnce,
  flag,
  intent,
  type Options,
  type Register,
  text,
  texts,
} from "../grammar.ts";
import { type Change, nextSteps, sendChange } from "../mutate.ts";
import { planView } from "../render/views-op.ts";
import { standbyView, unprotectedLines } from "../render/views-standby.ts";
import type { Session } from "../session.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun.command("ls").description("list standbys, and say which cells lack one and why"),
    async (session) => {
      const api = await session.api();
      await session.out.list(api.pages("/v1/standbys", standbySchema), standbyView);
      const { items } = await api.get("/v1/protection", list(protectionSchema));
      for (const line of unprotectedLines(items)) await session.note(line);
      return 0;
    },
  );
  bind(
    noun.command("get <standby>").description("one standby, in full"),
    async (session, [id = ""]) => {
      const api = await session.api();
      await session.out.one(await api.get(apiPath`/v1/standbys/${id}`, standbySchema), standbyView);
      return 0;
    },
  );
  bind(addCommand(noun), add);
  bind(
    destructiveAtOnce(
      noun
        .command("rm <standby>")
        .description("let a standby leave: its origin forgets it, then it is removed"),
    ),
    async (session, [id = ""], options) => {
      if (!flag(options, "dryRun")) {
        const effect = `The standby ${id} is removed; until another one keeps its keys, they have none.`;
        await confirm(session, { name: id, effect }, text(options, "confirm"));
      }
      return change(session, options, { method: "DELETE", path: apiPath`/v1/standbys/${id}` });
    },
  );
};

const addCommand = (noun: Command): Command =>
  intent(
    noun
      .command("add <origin>")
      .description("register a standby whose database and agent you run yourself")
      .requiredOption("--host <cell>", "the cell beside which it stands")
      .option("--buckets <lo-hi>", "of 256; tenants fall into them by hash (default: 0-255)")
      .requiredOption(
        "--database-url <ref>",
        "its first database: env:NAME, file:PATH, exec:COMMAND",
      )
      .requiredOption(
        "--mover <ref>",
        "login of the mover's role; of a further store: NAME=REF",
        collect,
      )
      .option("--store <name=ref>", "a further database; repeat for more", collect)
      .option("--key-column <name>", "the column that names the tenant (default: tenant_id)")
      .option("--endpoint <url>", "where its agent listens; repeat for more", collect),
  );

async function add(session: Session, [origin = ""]: readonly string[], options: Options) {
  const said = { ...options, databaseUrlRef: text(options, "databaseUrl") };
  const buckets = bucketsOf(text(options, "buckets"));
  const endpoints = texts(options, "endpoint");
  const body = {
    ...{ origin, host: text(options, "host") ?? "", stores: storesOf(said) },
    ...(buckets === undefined ? {} : { buckets }),
    ...(endpoints.length === 0 ? {} : { endpoints }),
  };
  return change(session, options, { path: "/v1/standbys", body });
}

function bucketsOf(
  raw: string | undefined,
): { readonly lo: number; readonly hi: number } | undefined {
  if (raw === undefined) return undefined;
  const [, lo, hi] = /^(\d{1,3})-(\d{1,3})$/.exec(raw) ?? [];
  if (lo === undefined || hi === undefined)
    throw usage(`--buckets "${raw}": must be LO-HI, such as 0-127`);
  return { lo: Number(lo), hi: Number(hi) };
}

/** What is done when the answer comes: there is no operation to follow. */
async function change(session: Session, options: Options, asked: Change): Promise<number> {
  if (flag(options, "dryRun")) {
    const plan = await sendChange(session, options, asked, dryRunSchema);
    await session.out.one(plan, planView);
    return 0;
  }
  const { standby, next_steps } = await sendChange(session, options, asked, standbyChangedSchema);
  await session.out.one(standby, standbyView);
  await nextSteps(session, next_steps);
  return 0;
}
