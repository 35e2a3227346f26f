/**
 * The door to this room: runs `cellctl agent` until it is told to stop, and ends with an exit code.
 * Settings come as texts, secrets as references that are resolved here.
 */
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { systemRandom } from "../../runtime/random.ts";
import { resolveSecret } from "../../runtime/secret-ref.ts";
import { startAgent } from "./agent.ts";
import { parseAgentConfig } from "./config.ts";
import type { AgentEvents } from "./events.ts";

export type RunAgentOptions = {
  /** As on the command line: `cell`, `listen`, `admin`, `upstream`, `databaseUrl`, …. */
  readonly flags: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
};

export async function runAgent(options: RunAgentOptions): Promise<number> {
  const config = parseAgentConfig(options.flags);
  const secret = (reference: string) => resolveSecret(reference, options.env);
  const replicaRefs = config.services.flatMap(({ replicas }) =>
    replicas.map((one) => one.database),
  );
  const [databaseUrl, storeDatabaseUrls, token, queryDatabaseUrl, replicaDatabaseUrls] =
    await Promise.all([
      secret(config.databaseUrl),
      Promise.all(
        config.stores.map(async (one) => [one.name, await secret(one.databaseUrl)] as const),
      ),
      secret(config.token),
      config.queryDatabaseUrl === undefined ? undefined : secret(config.queryDatabaseUrl),
      Promise.all(replicaRefs.map(async (ref) => [ref, await secret(ref)] as const)),
    ]);
  const log = createLog<AgentEvents>({
    clock: systemClock,
    part: "agent",
    level: "info",
    write: (line) => process.stdout.write(line),
  });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  const { standbyServer } = config;
  const agent = await startAgent({
    ...{ config, databaseUrl, token, log },
    ...(queryDatabaseUrl === undefined ? {} : { queryDatabaseUrl }),
    standbyServer: standbyServer === undefined ? undefined : () => secret(standbyServer),
    storeDatabaseUrls: new Map(storeDatabaseUrls),
    replicaDatabaseUrls: new Map(replicaDatabaseUrls),
    clock: systemClock,
    random: systemRandom,
  });
  await stopped;
  await agent.close();
  return 0;
}
