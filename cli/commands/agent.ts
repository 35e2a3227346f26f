/** `cellctl agent`: the process in front of an application in a cell. */
import { collect, type Register } from "../grammar.ts";
import { rawFlags } from "../process-flags.ts";

export const register: Register = (noun, bind) => {
  noun
    .option("--cell <cell>", "the cell it belongs to")
    .option("--listen <host:port>", "where routers send requests")
    .option("--admin <host:port>", "health, metrics and status")
    .option(
      "--upstream <[name=]url>",
      "an instance of the application, or of its service NAME; repeat for more",
      collect,
    )
    .option("--health <[name=]path>", "what is asked of its instances (default: /livez)", collect)
    .option("--database-url <ref>", "the cell's PostgreSQL: env:NAME, file:PATH or exec:COMMAND")
    .option(
      "--store <name=ref>",
      "a further database of the cell with tables of tenants; repeat for more",
      collect,
    )
    .option("--control-plane <url>", "where to ask for the lease")
    .option("--token <ref>", "its token for the control plane")
    .option("--endpoint <url>", "as routers reach it (default: as it listens)")
    .option(
      "--replica <[name=]url,ref>",
      "an instance that reads from the replica whose database is REF; repeat for more",
      collect,
    )
    .option("--tls-cert <file>", "a certificate: routers then reach it by https:")
    .option("--tls-key <file>", "its key")
    .option("--tls-client-ca <file>", "routers must show a certificate of this authority")
    .option(
      "--gold-ms <ms>",
      "longest wait of an answer of tier gold for the partner (default: 2000)",
    )
    .option("--replica-lag-ms <ms>", "a replica further behind is not used (default: 1000)")
    .option("--query-database-url <ref>", "a login that may only read, for cellctl query")
    .option(
      "--standby-server <ref>",
      "of an annex whose rows are in a server that follows its origin's: a login into that, as the agent",
    )
    .option("--trust-keys <file>", "public keys of the control plane: follow the routing table")
    .option("--state-dir <dir>", "where the routing table is kept, with --trust-keys")
    .option(
      "--router-signatures <mode>",
      "requests that no router of the fleet signed: require, observe or off (default: require with --trust-keys)",
    );
  bind(noun, async (session, _args, options) => {
    const { runAgentProcess } = await import("../processes.ts");
    return runAgentProcess(session, rawFlags(noun, options, session.io.env));
  });
};
