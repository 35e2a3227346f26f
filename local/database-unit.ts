/** A PostgreSQL server as a supervised unit, and how one comes to be. */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { writeJson } from "./data-folder.ts";
import { clearRemains, findRunning } from "./postgres/postmaster-file.ts";
import {
  dataDirOf,
  type PostgresServer,
  type ServerOptions,
  startServer,
} from "./postgres/server.ts";
import {
  createFromTemplate,
  renewPassword,
  type Template,
  type TemplateTools,
} from "./postgres/template.ts";
import { createUnit, type Unit, type UnitStatus } from "./unit.ts";

export type DatabaseUnit = Unit & {
  /** Only while it runs. */
  readonly server: () => PostgresServer | undefined;
};

export type DatabaseOptions = {
  readonly name: string;
  readonly folder: string;
  readonly logs: string;
  readonly restart: boolean;
  readonly tools: TemplateTools;
  readonly onChange: (status: UnitStatus) => void;
};

export function createDatabaseUnit(options: DatabaseOptions): DatabaseUnit {
  let server: PostgresServer | undefined;
  const serverOptions = serverOptionsOf(options);
  const unit = createUnit({
    name: options.name,
    restart: options.restart,
    clock: options.tools.clock,
    onChange: options.onChange,
    launch: async () => {
      const started = await startServer(serverOptions);
      server = started;
      return {
        pid: started.pid,
        gone: started.gone().then(() => "the postmaster is gone"),
        stop: () => started.stop("fast"),
        kill: () => started.stop("immediate"),
      };
    },
  });
  // A postmaster that was killed alone leaves backends that can still commit: no end without theirs.
  const endOrphans = async (): Promise<void> => {
    if (unit.status().state === "running" || !unit.isSettled()) return;
    const dataDir = dataDirOf(options.folder);
    if ((await findRunning(dataDir)) !== undefined) return;
    await clearRemains(dataDir, options.tools.clock);
  };
  return {
    ...unit,
    stop: () => unit.stop().then(endOrphans),
    kill: () => unit.kill().then(endOrphans),
    server: () => (unit.status().state === "running" ? server : undefined),
  };
}

/**
 * A server of its own in `folder`, made once, and given passwords of its own by `finish`. Interrupted
 * anywhere, it is made anew: nothing was stored in it before the mark was set.
 */
export async function ensureDatabase(
  options: DatabaseOptions,
  template: Template,
  finish: (server: PostgresServer) => Promise<void>,
): Promise<"made" | "known"> {
  const mark = join(options.folder, "made.json");
  if (await exists(mark)) return "known";
  const serverOptions = serverOptionsOf(options);
  await createFromTemplate(options.folder, template, options.tools);
  const server = await startServer(serverOptions);
  // It keeps running: the unit's start adopts it.
  await renewPassword(options.folder, server.url(), options.tools.random);
  await finish(await startServer(serverOptions));
  await writeJson(mark, { server: options.tools.installation.version });
  return "made";
}

const serverOptionsOf = ({ name, folder, logs, tools }: DatabaseOptions): ServerOptions => ({
  folder,
  name,
  installation: tools.installation,
  clock: tools.clock,
  random: tools.random,
  logFile: join(logs, `${name}.log`),
  durable: true,
});

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
