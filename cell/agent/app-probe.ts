/**
 * Does the application answer? Any HTTP answer below 500 counts: an adopted application may have no
 * `/livez` at all. Probing decides nothing about requests; it is what people and the control plane see.
 */
import { Agent, request } from "undici";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { AgentLog } from "./events.ts";

export type AppProbe = {
  readonly reachable: () => boolean;
  readonly close: () => Promise<void>;
};

const intervalMs = 2000;
const timeoutMs = 1500;

export function startAppProbe(options: {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly upstream: string;
}): AppProbe {
  const { upstream, log } = options;
  const agent = new Agent({ connections: 1, connectTimeout: timeoutMs, allowH2: false });
  const url = `${upstream.replace(/\/+$/, "")}/livez`;
  let reachable: boolean | undefined;

  function note(now: boolean, reason: string): void {
    if (now !== reachable) {
      if (now) log.event("app.found", { upstream });
      else log.event("app.lost", { upstream, reason }, "warn");
    }
    reachable = now;
  }

  const loop = startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs,
    backoffMaxMs: intervalMs,
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
  return {
    reachable: () => reachable === true,
    close: async () => {
      await loop.close();
      await agent.destroy();
    },
  };
}
