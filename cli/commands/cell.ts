/** `cellctl cell …`: the fleet's cells, and what can be done to one. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { type CellAction, cellSchema, list } from "../../contract/control-api.ts";
import { standbySchema } from "../../contract/standby-api.ts";
import { apiPath } from "../api.ts";
import { capacityOf, withCapacity } from "../capacity-options.ts";
import { cannotRead, usage } from "../failures.ts";
import {
  type Bind,
  collect,
  destructive,
  flag,
  mutation,
  type Options,
  overridable,
  type Register,
  spelled,
  text,
  texts,
} from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { parseDuration } from "../render/units.ts";
import { cellView } from "../render/views.ts";
import { standbyLines } from "../render/views-standby.ts";
import type { Session } from "../session.ts";
import { registerAdoption } from "./cell-adoption.ts";
import { leaseModeHelp, leaseModeNamed, registerLeaseMode } from "./lease-mode.ts";
import { registerReadmit } from "./readmit.ts";
import { registerSalvage } from "./salvage.ts";

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list cells"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/cells", cellSchema), cellView);
    return 0;
  });
  bind(noun.command("get <cell>").description("one cell, in full"), async (session, [id = ""]) => {
    const api = await session.api();
    await session.out.one(await api.get(apiPath`/v1/cells/${id}`, cellSchema), cellView);
    const { items } = await api.get("/v1/standbys?limit=1000", list(standbySchema));
    for (const line of standbyLines(id, items)) await session.note(line);
    return 0;
  });
  bind(mutation(createCommand(noun)), create);
  registerLeaseMode(noun, bind);
  registerReadmit(noun, bind);
  registerAdoption(noun, bind);
  registerActions(noun, bind);
  registerSalvage(noun, bind);
};

function registerActions(noun: Command, bind: Bind): void {
  const gentle: Readonly<Partial<Record<CellAction, string>>> = {
    cordon: "no new tenants; those that live here stay",
    uncordon: "open for new tenants again",
    start: "start what is stopped or dead, on its own data",
  };
  for (const [action, summary] of Object.entries(gentle)) {
    const command = mutation(noun.command(`${action} <cell>`).description(summary));
    bind(action === "cordon" ? overridable(command) : command, act(action));
  }
  bind(
    overridable(
      mutation(
        noun
          .command("drain <cell>")
          .description("let its tenants leave by live moves; `cell uncordon` calls it off")
          .option("--percent <n>", "only this share of its keys, by stable hash (default: 100)")
          .option("--to <cell>", "all of them there (default: where placement would put each)")
          .option("--spread", "where placement would put each (the default)")
          .option("--max-parallel <n>", "moves at the same time (default: 4)")
          .option("--deadline <time>", "give up after so long, such as 30m"),
      ),
    ),
    drain,
  );
  const dangers: Readonly<Partial<Record<CellAction, readonly [string, string]>>> = {
    stop: [
      "stop it in order (local provider)",
      "stops: its tenants get errors until it is started again.",
    ],
    kill: [
      "crash application and database at once (local provider, for drills)",
      "crashes: its tenants get errors until it is started again.",
    ],
    destroy: [
      "remove an empty cell and its data; of one that is adopted, in pass-through, only our books",
      "leaves the fleet for good, and its id is spent. What a provider runs of it is removed with its data.",
    ],
  };
  for (const [action, [summary, effect]] of Object.entries(dangers)) {
    const command = overridable(destructive(noun.command(`${action} <cell>`).description(summary)));
    if (action === "destroy") {
      command.option(
        "--storage-removed",
        "say that the storage of a cell without a provider is gone: receipts of deletions will name you",
      );
    }
    bind(command, act(action, effect));
  }
}

const act =
  (action: string, effect?: string) =>
  (session: Session, [id = ""]: readonly string[], options: Options): Promise<number> =>
    mutate(session, options, {
      path: `${apiPath`/v1/cells/${id}`}/${action}`,
      ...(flag(options, "storageRemoved") ? { body: { storageRemoved: true } } : {}),
      ...(effect === undefined ? {} : { danger: { name: id, effect: `Cell ${id} ${effect}` } }),
    });

async function drain(session: Session, [id = ""]: readonly string[], options: Options) {
  const deadline = text(options, "deadline");
  const deadlineMs = deadline === undefined ? undefined : parseDuration(deadline);
  if (deadline !== undefined && deadlineMs === undefined) {
    throw usage(`--deadline: "${deadline}" is no time such as 30m`);
  }
  if (flag(options, "spread") && text(options, "to") !== undefined) {
    throw usage("--to and --spread exclude each other");
  }
  const body = defined({
    percent: numberOf(options, "percent"),
    to: text(options, "to"),
    parallelMax: numberOf(options, "maxParallel"),
    deadlineMs,
  });
  return mutate(session, options, { path: `${apiPath`/v1/cells/${id}`}/drain`, body });
}

function numberOf(options: Options, name: string): number | undefined {
  const said = text(options, name);
  if (said === undefined) return undefined;
  if (!/^\d+$/.test(said)) throw usage(`${spelled(name)}: "${said}" is no whole number`);
  return Number(said);
}

const createCommand = (noun: Command): Command =>
  withCapacity(
    noun
      .command("create <cell>")
      .description("create a cell, or register one that runs already (--endpoint)")
      .option("--region <name>", "where it stands (default: local)")
      .option("--failure-domain <name>", "what it would fail together with")
      .option("--tier <name>", "tier that may live here; repeat for more (default: all)", collect)
      .option("--dedicated", "only tenants created for it by name")
      .option("--lease-mode <mode>", `${leaseModeHelp} (default: the control plane's)`),
  )
    .option("--endpoint <url>", "a cell that runs already: its entry; repeat for more", collect)
    .option("-f, --file <file>", "the whole request as JSON or YAML; options win over it");

async function create(session: Session, [id = ""]: readonly string[], options: Options) {
  const said = text(options, "leaseMode");
  const file = text(options, "file");
  const base = file === undefined ? {} : await readObject(session, file);
  const endpoints = texts(options, "endpoint");
  const capacity = capacityOf(options);
  const body = {
    ...base,
    id,
    ...defined({
      region: text(options, "region"),
      failureDomain: text(options, "failureDomain"),
      tiers: texts(options, "tier").length === 0 ? undefined : texts(options, "tier"),
      dedicated: flag(options, "dedicated") ? true : undefined,
      leaseMode: said === undefined ? undefined : leaseModeNamed(said, "--lease-mode"),
      capacity:
        Object.keys(capacity).length === 0
          ? undefined
          : { ...record(base["capacity"]), ...capacity },
      ...(endpoints.length === 0 ? {} : { provider: "none", endpoints }),
    }),
  };
  return mutate(session, options, { path: "/v1/cells", body });
}

async function readObject(session: Session, path: string): Promise<Record<string, unknown>> {
  const { resolve } = await import("node:path");
  const { parse } = await import("yaml");
  try {
    // YAML reads JSON too.
    return record(parse(await readFile(resolve(session.io.cwd, path), "utf8")));
  } catch (cause) {
    throw cannotRead(path, cause);
  }
}

const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : {};

const defined = (fields: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
