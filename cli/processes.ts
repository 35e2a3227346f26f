/**
 * The one door from the CLI to the other rooms: each process of the fleet is started by its room's
 * `run.ts`, which ends in its own order when it is told to. Of the router's settings it knows the defaults.
 */
import { systemClock } from "../runtime/clock.ts";
import type { RawFlags } from "./process-flags.ts";
import type { Session } from "./session.ts";

/** A signal that comes sooner after the first is the same one, forwarded by the launcher or by npm. */
const sameSignalMs = 1000;
const exitInterrupted = 130;

/** The supervisor of `dev` counts its signals itself. */
export async function runDev(session: Session, flags: RawFlags): Promise<number> {
  const { runDevFleet } = await import("../local/run.ts");
  return runDevFleet({ flags, env: session.io.env });
}

export async function runControlPlaneProcess(session: Session, flags: RawFlags): Promise<number> {
  const { runControlPlane } = await import("../control-plane/run.ts");
  return inOrder(() => runControlPlane({ flags, env: session.io.env }));
}

export async function runRouterProcess(session: Session, flags: RawFlags): Promise<number> {
  const { runRouter } = await import("../router/run.ts");
  return inOrder(() => runRouter({ flags, env: session.io.env }));
}

/** For its help: what holds where nothing is said. */
export async function routerDefaults(): Promise<ReadonlyMap<string, string>> {
  return (await import("../router/config.ts")).routerDefaults();
}

export async function runAgentProcess(session: Session, flags: RawFlags): Promise<number> {
  const { runAgent } = await import("../cell/agent/run.ts");
  return inOrder(() => runAgent({ flags, env: session.io.env }));
}

/**
 * The rooms hear the first end signal and finish what is in flight; without a second listener its
 * echo would kill the process in the middle of that. Somebody who asks again later means it.
 */
async function inOrder(run: () => Promise<number>): Promise<number> {
  let firstMs: number | undefined;
  const onSignal = () => {
    const nowMs = systemClock.monotonicMs();
    if (firstMs !== undefined && nowMs - firstMs > sameSignalMs) process.exit(exitInterrupted);
    firstMs ??= nowMs;
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  try {
    return await run();
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}
