/**
 * Do the application's instances answer? Any HTTP answer below 500 counts: an adopted application may
 * have no `/livez` at all. A probe refuses no request; it says which instance to prefer, and what
 * people and the control plane see.
 */
import { Agent, request } from "undici";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { AgentLog } from "./events.ts";
import { type Instance, onPrimary, type Upstreams } from "./upstreams.ts";

export type AppProbe = {
  /** Each service has an instance that lives. */
  readonly reachable: () => boolean;
  /** Services without one, in their order. */
  readonly silentServices: () => readonly string[];
  readonly close: () => Promise<void>;
};

const intervalMs = 2000;
const timeoutMs = 1500;

export function startAppProbe(options: {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly upstreams: Upstreams;
}): AppProbe {
  const { upstreams } = options;
  const lives = new Map<Instance, boolean>();
  const agent = new Agent({ connections: 1, connectTimeout: timeoutMs, allowH2: false });
  const loops = upstreams.all().map((instance) => probeLoop(options, instance, agent, lives));
  upstreams.probedBy((instance) => lives.get(instance) === false);
  const silentServices = () =>
    upstreams.services.filter(
      (service) =>
        // A service whose primaries are gone answers reads at best.
        !upstreams
          .all()
          .some((one) => one.service === service && onPrimary(one) && lives.get(one) === true),
    );
  return {
    reachable: () => silentServices().length === 0,
    silentServices,
    close: async () => {
      await Promise.all(loops.map((loop) => loop.close()));
      await agent.destroy();
    },
  };
}

function probeLoop(
  options: { readonly clock: Clock; readonly random: Random; readonly log: AgentLog },
  instance: Instance,
  agent: Agent,
  lives: Map<Instance, boolean>,
) {
  const { clock, random, log } = options;
  const upstream = instance.endpoint.url;
  const url = `${new URL(upstream).origin}${instance.endpoint.basePath}${instance.health}`;

  function note(now: boolean, reason: string): void {
    if (now !== lives.get(instance)) {
      if (now) log.event("app.found", { upstream });
      else log.event("app.lost", { upstream, reason }, "warn");
    }
    lives.set(instance, now);
  }

  return startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs: intervalMs },
    turn: async (signal) => {
      const response = await request(url, {
        dispatcher: agent,
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      });
      await response.body.dump();
      note(response.statusCode < 500, `it answers ${response.statusCode}`);
      return "idle";
    },
    onError: (error) => note(false, String(errorFields(error)["error"])),
  });
}
