/** `cellctl lever …`: the fleet-wide stop, gating switches, and what the safety rules count by. */
import { leverSchema, safetySchema, switchSchema } from "../../contract/safety-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import {
  collect,
  mutation,
  type Options,
  type Register,
  spelled,
  text,
  texts,
} from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { parseDuration } from "../render/units.ts";
import { leverView, safetyView, switchView } from "../render/views-safety.ts";
import type { Session } from "../session.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("status")
      .description("is the lever engaged, and what do the rules say of what can wait"),
    async (session) => {
      const api = await session.api();
      if (session.out.structured) {
        await session.out.one(await api.get("/v1/lever", leverSchema), leverView);
      } else {
        await session.out.one(await api.get("/v1/safety", safetySchema), safetyView);
      }
      return 0;
    },
  );
  bind(
    mutation(
      noun
        .command("engage")
        .description("stop every operation that is not a repair; say why with --reason"),
    ),
    pull("engage"),
  );
  bind(
    mutation(noun.command("release").description("let operations go on that waited for the lever")),
    pull("release"),
  );
  bind(
    noun.command("switches").description("gating switches, and which operations need them open"),
    async (session) => {
      const api = await session.api();
      await session.out.list(api.pages("/v1/switches", switchSchema), switchView);
      return 0;
    },
  );
  bindSwitch(noun, bind, "open");
  bindSwitch(noun, bind, "close");
  bind(
    mutation(noun.command("forget <switch>").description("remove a gating switch")),
    async (session, [id = ""], options) =>
      mutate(session, options, { method: "DELETE", path: apiPath`/v1/switches/${id}` }),
  );
  bind(
    mutation(
      noun
        .command("limits")
        .description("what the safety rules count by; what is not said stays as it is")
        .option("--healthy-cells <n>", "cells that must stay healthy")
        .option("--open-cells <n>", "cells that must stay open for placement")
        .option("--headroom <word>", "require, warn or off: must a cell less still fit?")
        .option("--motion-share <share>", "of all tenants, in motion at most (0 to 1)")
        .option("--motion-floor <n>", "so many may always be in motion")
        .option("--wait-after-failover <time>", "no rebalance or drill for so long, such as 30m"),
    ),
    setLimits,
  );
};

const bindSwitch = (
  noun: Parameters<Register>[0],
  bind: Parameters<Register>[1],
  verb: "open" | "close",
): void => {
  bind(
    mutation(
      noun
        .command(`${verb} <switch>`)
        .description(
          verb === "open"
            ? "open a gating switch"
            : "close a gating switch: operations that it names wait",
        )
        .option("--kind <action>", "operations that need it open: move.start, cell.* …", collect),
    ),
    async (session, [id = ""], options) => {
      const kinds = texts(options, "kind");
      const body = { open: verb === "open", ...(kinds.length > 0 ? { kinds } : {}) };
      return mutate(session, options, { method: "PUT", path: apiPath`/v1/switches/${id}`, body });
    },
  );
};

const pull =
  (verb: "engage" | "release") =>
  async (session: Session, _args: readonly string[], options: Options): Promise<number> => {
    if (text(options, "reason") === undefined && options["dryRun"] !== true) {
      throw usage("say why: whoever comes next must know", `cellctl lever ${verb} --reason "…"`);
    }
    return mutate(session, options, { path: `/v1/lever/${verb}` });
  };

async function setLimits(
  session: Session,
  _args: readonly string[],
  options: Options,
): Promise<number> {
  const body = {
    ...number(options, "healthyCells", "healthyCellsMin"),
    ...number(options, "openCells", "openCellsMin"),
    ...number(options, "motionShare", "motionShareMax"),
    ...number(options, "motionFloor", "motionFloor"),
    ...word(options, "headroom"),
    ...wait(options),
  };
  if (Object.keys(body).length === 0) {
    throw usage("say what to set", "cellctl lever limits --help");
  }
  return mutate(session, options, { method: "PUT", path: "/v1/safety/limits", body });
}

function number(options: Options, name: string, field: string): Record<string, number> {
  const said = text(options, name);
  if (said === undefined) return {};
  const value = Number(said);
  if (said.trim() === "" || !Number.isFinite(value))
    throw usage(`${spelled(name)}: "${said}" is no number`);
  return { [field]: value };
}

function word(options: Options, name: string): Record<string, string> {
  const said = text(options, name);
  return said === undefined ? {} : { [name]: said };
}

function wait(options: Options): Record<string, number> {
  const said = text(options, "waitAfterFailover");
  if (said === undefined) return {};
  const waitAfterFailoverMs = parseDuration(said);
  if (waitAfterFailoverMs === undefined)
    throw usage(`--wait-after-failover: "${said}" is no time such as 30m`);
  return { waitAfterFailoverMs };
}
