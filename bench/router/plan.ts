/** Pure: what to measure, as the command line says it; or what it may say. */
import { parseArgs } from "node:util";
import type { Answer } from "./load.ts";
import { type ProxyName, proxyNames } from "./proxies.ts";

export type Plan = {
  readonly kind: "plan";
  readonly names: readonly ProxyName[];
  readonly rounds: number;
  readonly seconds: number;
  readonly bodies: readonly Answer[];
  readonly latency: boolean;
  readonly save: boolean;
};
/** `wrong` is absent when somebody only asked. */
export type Usage = { readonly kind: "usage"; readonly text: string; readonly wrong?: string };

const text = `usage: npm run bench -- router [--rounds N] [--seconds S] [--only NAME,NAME] [--no-bodies] [--no-latency] [--no-save]

  --rounds N      rounds in which all proxies run in turn (default: 3)
  --seconds S     of each proxy in a round (default: 1)
  --only NAMES    of ${proxyNames.slice(0, 5).join(", ")},
                  ${proxyNames.slice(5).join(", ")}
  --no-bodies     without answers of 64 KiB and 1 MiB
  --no-latency    without the times of few connections
  --no-save       write no file to bench/results/

Columns:
  CPU us/req      microseconds of CPU of the proxy per request: median of its three lowest rounds
  all             the same, median of all rounds
  req/s           requests a second that one processor carried
  p50, p99, p99.9 milliseconds until an answer, at full load
  +p50, +p99      milliseconds more than without a proxy, with few connections
  MiB/CPU-s SIZE  MiB of answers of that size for a second of CPU
  RSS MiB         memory of the proxy at the end
  x NAME          CPU per request as a multiple of NAME's
`;

const options = {
  help: { type: "boolean", short: "h", default: false },
  rounds: { type: "string", default: "3" },
  seconds: { type: "string", default: "1" },
  only: { type: "string" },
  bodies: { type: "boolean", default: true },
  latency: { type: "boolean", default: true },
  save: { type: "boolean", default: true },
} as const;

export function readPlan(args: readonly string[]): Plan | Usage {
  const usage = (wrong: string): Usage => ({ kind: "usage", text, wrong });
  const read = parse(args);
  if (typeof read === "string") return usage(read);
  if (read.help) return { kind: "usage", text };
  const [rounds, seconds] = [Number(read.rounds), Number(read.seconds)];
  for (const [name, value] of Object.entries({ rounds, seconds })) {
    if (!Number.isSafeInteger(value) || value < 1) return usage(`--${name} must be 1 or more`);
  }
  const wanted = read.only?.split(",");
  const strange = wanted?.filter((name) => !proxyNames.some((one) => one === name)) ?? [];
  if (strange.length > 0) return usage(`--only: there is no proxy ${strange.join(", ")}`);
  return {
    kind: "plan",
    names: proxyNames.filter((name) => wanted?.includes(name) ?? true),
    ...{ rounds, seconds, latency: read.latency, save: read.save },
    bodies: read.bodies ? ["64KiB", "1MiB"] : [],
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowNegative: true, options }).values;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Undefined: nobody else is at work. `load`: how many wanted a processor in the last minute. */
export const busyText = (load: number, processors: number): string | undefined =>
  load <= processors
    ? undefined
    : `Warning: the machine is busy (load ${load.toFixed(1)} on ${processors} processors): the figures are not to be trusted.`;
