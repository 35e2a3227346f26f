/** `cellctl control-plane`: one control plane process. Several may run; one leads. */
import type { Register } from "../grammar.ts";
import { rawFlags } from "../process-flags.ts";

export const register: Register = (noun, bind) => {
  noun
    .option("--listen <host:port>", "where the API listens")
    .option("--admin <host:port>", "health and metrics")
    .option("--database-url <ref>", "its PostgreSQL: env:NAME, file:PATH or exec:COMMAND")
    .option("--signing-key <path>", "private key that signs routing tables")
    .option("--provider-url <url>", "the provider that runs cells on this machine")
    .option("--provider-token <ref>", "token for the provider")
    .option("--bootstrap-token <ref>", "the first admin's token")
    .option("--lease-ttl <time>", "how long a cell may serve by one grant (default: 4s)")
    .option(
      "--lease-mode <mode>",
      "of cells made from now on: timed, or manual: nobody takes over before a power-off (default: timed)",
    )
    .option(
      "--failsafe-promise <time>",
      "without a control plane: how long a partner's promise lets a cell serve (default: 20m)",
    )
    .option(
      "--gold-partner-loss <what>",
      "answers of tier gold without their partner: refuse or degrade (default: refuse)",
    )
    .option("--standby-partners <count>", "partners of each cell's standbys, 0 to 3 (default: 3)")
    .option(
      "--standby-applications <warm|cold>",
      "run the application at ready standbys, or start it when a failover needs it (default: warm)",
    )
    .option(
      "--standby <kind>",
      "of standbys made from now on: logical (by bucket), or physical: a whole server in one partner (default: logical)",
    )
    .option("--failover <policy>", "of a dead cell: auto, suggest or off (default: suggest)")
    .option(
      "--canary <url>",
      "asked for one tenant of each adopter after a takeover, through a router",
    )
    .option(
      "--canary-write <json>",
      'and posted for tenants labelled cellfleet.canary=true: {"path", "body"}',
    )
    .option("--instance <name>", "its name among several (default: host, process and chance)")
    .option("--allow-hook-commands", "hooks of stores may be commands that this process runs")
    .option("--connections <count>", "connections to its PostgreSQL (default: 20)")
    .option("--log-level <level>", "debug, info, warn or error (default: info)");
  bind(noun, async (session, _args, options) => {
    const { runControlPlaneProcess } = await import("../processes.ts");
    return runControlPlaneProcess(session, rawFlags(noun, options, session.io.env));
  });
};
