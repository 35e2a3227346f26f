/** `cellctl slo …`: objectives, and what is left of their error budgets. */
import { sloSchema } from "../../contract/slo-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { mutation, type Options, type Register, text } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { parseDuration } from "../render/units.ts";
import { sloView } from "../render/views-slo.ts";
import type { Session } from "../session.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("ls")
      .description("objectives, each with the budget of the cell that is worst off"),
    async (session) => {
      const api = await session.api();
      await session.out.list(api.pages("/v1/slos", sloSchema), sloView);
      return 0;
    },
  );
  bind(
    noun.command("get <objective>").description("one objective, with the budget of every cell"),
    async (session, [id = ""]) => {
      const api = await session.api();
      await session.out.one(await api.get(apiPath`/v1/slos/${id}`, sloSchema), sloView);
      return 0;
    },
  );
  bind(
    mutation(
      noun
        .command("set <objective>")
        .description("make or change an objective; what is not said stays as it is")
        .option(
          "--cell <cell>",
          "this cell; '*': every cell, each by itself (default of a new one)",
        )
        .option("--service <service>", "this service; '*': all together (default of a new one)")
        .option("--tier <tier>", "tenants of this tier; '*': all (default of a new one)")
        .option("--target <percent>", "of requests must end well (default of a new one: 99.9)")
        .option("--window <time>", "whole days, such as 30d (default of a new one: 30d)"),
    ),
    setObjective,
  );
  bind(
    mutation(
      noun.command("rm <objective>").description("forget an objective; what was counted stays"),
    ),
    async (session, [id = ""], options) =>
      mutate(session, options, { method: "DELETE", path: apiPath`/v1/slos/${id}` }),
  );
};

async function setObjective(
  session: Session,
  [id = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const body = {
    ...word(options, "cell"),
    ...word(options, "service"),
    ...word(options, "tier"),
    ...target(options),
    ...window(options),
  };
  return mutate(session, options, { method: "PUT", path: apiPath`/v1/slos/${id}`, body });
}

function word(options: Options, name: string): Record<string, string> {
  const said = text(options, name);
  return said === undefined ? {} : { [name]: said };
}

function target(options: Options): Record<string, number> {
  const said = text(options, "target");
  if (said === undefined) return {};
  const percent = Number(said.replace(/ ?%$/, ""));
  if (said.trim() === "" || !(percent >= 50 && percent <= 99.999)) {
    throw usage(`"${said}" is no percentage from 50 to 99.999`, "cellctl slo set ID --target 99.9");
  }
  // 99.9 / 100 is not 0.999 to a machine.
  return { target: Math.round(percent * 1e6) / 1e8 };
}

const dayMs = 24 * 3_600_000;

function window(options: Options): Record<string, number> {
  const said = text(options, "window");
  if (said === undefined) return {};
  const ms = parseDuration(said);
  if (ms === undefined || ms < dayMs || ms % dayMs !== 0) {
    throw usage(`"${said}" is no number of whole days`, "cellctl slo set ID --window 30d");
  }
  return { windowDays: ms / dayMs };
}
