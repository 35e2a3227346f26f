/**
 * The one door from the CLI to the other rooms: each process of the fleet is started by its room's
 * `run.ts`, which ends in its own order when it is told to.
 */
import type { RawFlags } from "./process-flags.ts";
import type { Session } from "./session.ts";

export async function runDev(session: Session, flags: RawFlags): Promise<number> {
  const { runDevFleet } = await import("../local/run.ts");
  return runDevFleet({ flags, env: session.io.env });
}
export async function runControlPlaneProcess(session: Session, flags: RawFlags): Promise<number> {
  return run("../control-plane/run.ts", "runControlPlane", session, flags);
}
export async function runRouterProcess(session: Session, flags: RawFlags): Promise<number> {
  return run("../router/run.ts", "runRouter", session, flags);
}
export async function runAgentProcess(session: Session, flags: RawFlags): Promise<number> {
  const { runAgent } = await import("../cell/agent/run.ts");
  return runAgent({ flags, env: session.io.env });
}

async function run(path: string, name: string, session: Session, flags: RawFlags): Promise<number> {
  const room: Record<string, (options: object) => Promise<number>> = await import(path);
  return (await room[name]?.({ flags, env: session.io.env })) ?? 0;
}
