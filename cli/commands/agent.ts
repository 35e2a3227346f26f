/** `cellctl agent`: the process in front of an application in a cell. */
import type { Register } from "../grammar.ts";
import { rawFlags } from "../process-flags.ts";

export const register: Register = (noun, bind) => {
  noun
    .option("--cell <cell>", "the cell it belongs to")
    .option("--listen <host:port>", "where routers send requests")
    .option("--admin <host:port>", "health, metrics and status")
    .option("--upstream <url>", "the application")
    .option("--database-url <ref>", "the cell's PostgreSQL: env:NAME, file:PATH or exec:COMMAND")
    .option("--control-plane <url>", "where to ask for the lease")
    .option("--token <ref>", "its token for the control plane")
    .option("--endpoint <url>", "as routers reach it (default: as it listens)");
  bind(noun, async (session, _args, options) => {
    const { runAgentProcess } = await import("../processes.ts");
    return runAgentProcess(session, rawFlags(noun, options, session.io.env));
  });
};
