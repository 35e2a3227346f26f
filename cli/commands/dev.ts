/** `cellctl dev`: a whole fleet on this machine; and its processes, by name. */
import type { Command } from "commander";
import type { Bind, Register } from "../grammar.ts";
import { rawFlags } from "../process-flags.ts";
import type { View } from "../render/output.ts";
import {
  actOnProcess,
  type LocalProcess,
  listProcesses,
  type ProcessAction,
} from "../supervisor.ts";

const processView: View<LocalProcess> = {
  id: ({ id }) => id,
  columns: [
    { head: "PROCESS", cell: ({ id }) => id },
    { head: "STATE", cell: ({ state }) => state, state: true },
    { head: "PID", cell: ({ pid }) => (pid === null ? "" : String(pid)), right: true },
    { head: "RESTARTS", cell: ({ restarts }) => String(restarts), right: true },
    { head: "TEXT", cell: ({ text }) => text },
  ],
};

export const register: Register = (noun, bind) => {
  noun
    .allowExcessArguments()
    .option("--app <file>", "a cellfleet.yaml: its application in place of the sample")
    .option("--cells <count>", "how many cells (default: 3; 0: none, they run elsewhere)")
    .option("--routers <count>", "how many routers (default: 1)")
    .option("--port <port>", "where the router listens (default: 8080; 0: the system chooses)")
    .option("--admin-port <port>", "the router's admin port (default: 8081)")
    .option("--control-plane-port <port>", "where the control plane listens (default: 8090)")
    .option("--standby-partners <count>", "partners that keep each cell's standbys (default: 3)")
    .option(
      "--standby-applications <warm|cold>",
      "run the application at ready standbys, or start it when a failover needs it (default: warm)",
    )
    .option(
      "--standby <kind>",
      "logical, or physical: a whole server in one partner (default: logical)",
    )
    .option("--failover <policy>", "of a dead cell: auto, suggest or off (default: auto)")
    .option("--ephemeral", "in a folder of its own, removed at the end")
    .option("--no-demo", "without demo tenants, or those of the cellfleet.yaml");
  bind(noun, async (session, _args, options) => {
    const { runDev } = await import("../processes.ts");
    const flags = rawFlags(noun, options, session.io.env);
    const { data } = session.fleetFlags;
    return runDev(session, {
      ...flags,
      ...(data === undefined ? fromEnv(session.io.env) : { data }),
    });
  });
  bind(noun.command("ps").description("the processes of the local fleet"), async (session) => {
    await session.out.list(onePage(await listProcesses(session)), processView);
    return 0;
  });
  const actions: Readonly<Record<ProcessAction, string>> = {
    start: "start what is stopped or dead",
    stop: "stop it in order; it stays stopped",
    kill: "crash it; a router or the control plane stays dead until it is started",
  };
  for (const [action, summary] of Object.entries(actions)) {
    processAction(noun, bind, action as ProcessAction, summary);
  }
};

function processAction(noun: Command, bind: Bind, action: ProcessAction, summary: string): void {
  bind(noun.command(`${action} <process>`).description(summary), async (session, [name = ""]) => {
    const process = await actOnProcess(session, name, action);
    await session.out.one(process, processView);
    return 0;
  });
}

/** An empty variable counts as none. */
function fromEnv(env: Readonly<Record<string, string | undefined>>): { readonly data?: string } {
  const data = env["CELLFLEET_DATA"];
  return data === undefined || data === "" ? {} : { data };
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}
