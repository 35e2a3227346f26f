/** `npm run bench -- NAME [ARGUMENT]`: one measurement against real processes, figures on standard output. */
type Bench = { readonly what: string; readonly run: (args: readonly string[]) => Promise<void> };

const benches: Readonly<Record<string, Bench>> = {
  guard: {
    what: "what the guard and the visibility policy cost per row written and read",
    run: async () => (await import("./guard.ts")).run(),
  },
  router: {
    what: "[--rounds N] [--seconds S] [--only NAMES]  CPU per request beside nginx, HAProxy, http-proxy, @fastify/http-proxy",
    run: async (args) => (await import("./router.ts")).run(args),
  },
  chart: {
    what: "draws docs/bench-router.svg from the newest result of router",
    run: async () => (await import("./chart.ts")).run(),
  },
  table: {
    what: "[--uuid] [TENANTS...]  the routing table alone; --fleet [TENANTS]: through a real control plane",
    run: async (args) => (await import("./table.ts")).run(args),
  },
  restart: {
    what: "[KEPT] [NEW] [TUNNELS] [ROUNDS]  all workers of a router replaced under load: does a request fail?",
    run: async (args) => (await import("./restart.ts")).run(args),
  },
  move: {
    what: "[--moves N] [--writes N] [--large] [--no-sizes] [--no-save]  the pause of moves as clients see it, and its parts; whole moves by size",
    run: async (args) => (await import("./move.ts")).run(args),
  },
  failover: {
    what: "[--sizes 30,300,3000] [--writes N] [--no-save]  a cell killed under load: how long tenants were without it, step by step",
    run: async (args) => (await import("./failover.ts")).run(args),
  },
  standby: {
    what: "[--rounds N] [--seconds N]  what standbys cost a cell: orders per second and processor time, with and without",
    run: async (args) => (await import("./standby.ts")).run(args),
  },
  rebalance: {
    what: "[--tenants N] [--cells N]  planning a rebalance: time, distance from the best there can be, bytes",
    run: async (args) => (await import("./rebalance.ts")).run(args),
  },
  propagation: {
    what: "[CHANGES]  from commit until three routers serve a change, p50 and p99",
    run: async (args) => (await import("./propagation.ts")).run(args),
  },
};

const [name = "", ...args] = process.argv.slice(2);
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
if (bench === undefined) {
  const names = Object.entries(benches).map(([one, { what }]) => `  ${one.padEnd(12)} ${what}`);
  process.stderr.write(`usage: npm run bench -- NAME\n${names.join("\n")}\n`);
  process.exitCode = 64;
} else if (args.includes("--help") || args.includes("-h")) {
  process.stdout.write(`usage: npm run bench -- ${name} ${bench.what}\n`);
} else {
  await bench.run(args);
}
