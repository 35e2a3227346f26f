/** `cellctl cell adopt`, `set` and `stage`: a running application becomes a cell, step by step. */
import type { Command } from "commander";
import { cellStages } from "../../contract/routing-table.ts";
import { secretRefRule } from "../../runtime/secret-ref.ts";
import { apiPath } from "../api.ts";
import { capacityOf, withCapacity } from "../capacity-options.ts";
import { storesOf } from "../cell-stores.ts";
import { externalStoresOf, withExternalStores } from "../external-stores.ts";
import { usage } from "../failures.ts";
import {
  collect,
  destructive,
  flag,
  mutation,
  type Options,
  type Register,
  text,
  texts,
} from "../grammar.ts";
import { mutate } from "../mutate.ts";
import type { Session } from "../session.ts";

export const registerAdoption: Register = (noun, bind) => {
  bind(mutation(adoptCommand(noun)), adopt);
  bind(mutation(setCommand(noun)), set);
  bind(destructive(stageCommand(noun)), stage);
};

const moverHelp = "the login that moves tenants, of its store NAME; repeat for more";

const setCommand = (noun: Command): Command =>
  withExternalStores(
    noun
      .command("set <cell>")
      .description(
        "say how its databases are reached (provider none), and how its other stores move",
      )
      .option("--database-url-ref <ref>", `its first database: ${secretRefRule}`)
      .option("--store <name=ref>", "another database of it; repeat for more", collect)
      .option("--mover <[name=]ref>", moverHelp, collect)
      .option("--key-column <name>", "the column that names the tenant, of the stores named here"),
  );

async function set(session: Session, [id = ""]: readonly string[], options: Options) {
  const databases = storesOf(options);
  const external = externalStoresOf(options);
  const both = Object.keys(external).find((name) => databases[name] !== undefined);
  if (both !== undefined) throw usage(`the store ${both} is named twice: say one thing of it`);
  const stores = { ...databases, ...external };
  if (Object.keys(stores).length === 0) {
    throw usage(
      "say what to set: --database-url-ref, --store NAME=REF, --mover [NAME=]REF, --hook NAME=URL or --ignore-store NAME",
    );
  }
  return mutate(session, options, { path: apiPath`/v1/cells/${id}/stores`, body: { stores } });
}

const adoptCommand = (noun: Command): Command =>
  withCapacity(
    noun
      .command("adopt <cell>")
      .description("make what runs today a cell, in place: nothing is copied or installed")
      .option("--endpoint <url>", "where the application listens; repeat for more", collect)
      .option("--service <name=url>", "another service of it; repeat for more", collect)
      .option("--database-url-ref <ref>", `its database: ${secretRefRule}`)
      .option("--store <name=ref>", "another database of it; repeat for more", collect)
      .option("--mover <[name=]ref>", moverHelp, collect)
      .option("--key-column <name>", "the column that names the tenant (default: tenant_id)")
      .option("--guard-mode <mode>", "row or strict, of the keyspace default (default: row)")
      .option("--region <name>", "where it stands (default: local)")
      .option("--failure-domain <name>", "what it would fail together with")
      .option("--observe", "go on to stage observe when its agent has come"),
  );

async function adopt(session: Session, [id = ""]: readonly string[], options: Options) {
  const endpoints = texts(options, "endpoint");
  const services = servicesOf(texts(options, "service"));
  if (endpoints.length === 0 && Object.keys(services).length === 0) {
    throw usage("--endpoint is missing: where does the application listen?");
  }
  if (text(options, "databaseUrlRef") === undefined) {
    throw usage(`--database-url-ref is missing: ${secretRefRule}`);
  }
  const capacity = capacityOf(options);
  const observe = flag(options, "observe");
  const named = ["guardMode", "region", "failureDomain"]
    .map((name) => [name, text(options, name)] as const)
    .filter(([, value]) => value !== undefined);
  const body = {
    id,
    ...(endpoints.length === 0 ? {} : { endpoints }),
    ...(Object.keys(services).length === 0 ? {} : { services }),
    stores: storesOf(options),
    ...Object.fromEntries(named),
    ...(Object.keys(capacity).length === 0 ? {} : { capacity }),
    ...(observe ? { observe } : {}),
  };
  if (observe && !flag(options, "dryRun")) {
    await session.note(
      `Start the agent of ${id} meanwhile; its token: cellctl token create ${id}-agent --role agent --subject ${id}`,
    );
  }
  return mutate(session, options, { path: "/v1/cells/adopt", body });
}

function servicesOf(pairs: readonly string[]): Record<string, { endpoints: string[] }> {
  const services: Record<string, { endpoints: string[] }> = {};
  for (const [name, url] of pairs.map((raw) => pair("--service", raw))) {
    const service = services[name] ?? { endpoints: [] };
    service.endpoints.push(url);
    services[name] = service;
  }
  return services;
}

function pair(option: string, raw: string): [string, string] {
  const at = raw.indexOf("=");
  if (at < 1) throw usage(`${option} "${raw}": must be NAME=URL`);
  return [raw.slice(0, at), raw.slice(at + 1)];
}

const stageCommand = (noun: Command): Command =>
  noun
    .command("stage <cell> <stage>")
    .description("take an adopted cell to pass-through, observe or enforce, and back")
    .option(
      "--accept-refusals",
      "to enforce although something would have been refused in the last minute",
    )
    .addHelpText("after", stageHelp);

const stageHelp = `
pass-through  takes every request that no tenant's placement sends elsewhere; nothing of ours runs there
observe       the same through its agents; what would be refused is counted, nothing is refused
enforce       unknown tenants, missing leases and foreign rows are refused

--dry-run shows each condition and how it stands. The way back is the same command.`;

async function stage(
  session: Session,
  [id = "", to = ""]: readonly string[],
  options: Options,
): Promise<number> {
  if (!cellStages.some((known) => known === to)) {
    throw usage(`"${to}" is no stage: must be ${cellStages.join(", ")}`);
  }
  const acceptRefusals = flag(options, "acceptRefusals");
  return mutate(session, options, {
    path: apiPath`/v1/cells/${id}/stage`,
    body: { stage: to, ...(acceptRefusals ? { acceptRefusals } : {}) },
    ...(acceptRefusals
      ? {
          danger: {
            name: id,
            effect: `Cell ${id} refuses from now on what it only counted: some of its requests will fail.`,
          },
        }
      : {}),
  });
}
