/** `cellctl router`: with `--listen` it is a router; `router ls` and `router get` ask about the fleet's. */
import { Option } from "commander";
import { routerSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { usage } from "../failures.ts";
import type { AddHelp, Register } from "../grammar.ts";
import { rawFlags } from "../process-flags.ts";
import { routerView } from "../render/views.ts";

/** Limits and times; the router's own defaults hold where nothing is said. */
export const settings: readonly (readonly [string, string])[] = [
  ["--trusted-proxies <cidrs>", "peers whose X-Forwarded-* headers are believed"],
  ["--cell-headers <on|off>", "x-cell and x-cell-epoch on forwarded answers"],
  ["--access-log <on|off|errors>", "one line per request, or only of what did not end well"],
  ["--access-log-sample <share>", "of requests below 400, 0 to 1; what failed always has a line"],
  ["--otlp <url>", "an OpenTelemetry collector (OTLP over HTTP) for traces"],
  ["--trace-sample <share>", "of requests without a parent that are traced, 0 to 1"],
  ["--trace-tenants <on|off>", "the tenant on spans"],
  ["--explain-requests-max <count>", "requests that cellctl explain request knows"],
  ["--explain-bytes-max <bytes>", "memory that they may take"],
  ["--log-level <level>", "debug, info, warn or error"],
  ["--hold-ms <ms>", "longest wait while a placement switches its owner"],
  ["--handover-ms <ms>", "longest wait while keys of a cell that is gone get new owners; 0: none"],
  ["--fan-outs-max <count>", "requests to all cells at once that may be on their way"],
  ["--held-per-key-max <count>", "requests that may wait for one placement"],
  ["--stale-bytes-max <bytes>", "answers kept for routes that may be answered stale"],
  ["--acked-max <count>", "acknowledged writes of one cell that are remembered for a failover"],
  ["--acked-total-max <count>", "the same, of all cells"],
  ["--acked-ms <ms>", "so long before a cell's last acknowledged write they are remembered"],
  ["--held-max <count>", "requests that may wait in all"],
  ["--held-bytes-per-key-max <bytes>", "memory for requests that wait for one placement"],
  ["--held-bytes-max <bytes>", "memory for requests that wait in all"],
  ["--stale-ms <ms>", "longest wait for news of a placement that a cell's gate refused"],
  ["--connect-ms <ms>", "longest wait for a connection to a cell"],
  ["--head-ms <ms>", "longest wait for the head of a cell's answer"],
  ["--queue-ms <ms>", "longest wait for a free connection"],
  ["--pending-max <count>", "requests that may wait for a connection, per cell"],
  ["--connections-max <count>", "connections per endpoint of a cell"],
  ["--cell-inflight-max <count>", "requests of one cell under way, over all of its endpoints"],
  ["--cell-pending-max <count>", "requests that may wait for that"],
  ["--tenant-inflight-max <count>", "requests of one tenant under way; 0: no ceiling"],
  ["--inflight-max <count>", "requests under way; close to it the least important are refused"],
  ["--shed-late-ms <ms>", "lateness of the event loop that is overload; 0: do not look"],
  ["--deadline-ms <ms>", "from a request's head to its answer's; 0: none"],
  ["--dns-ms <ms>", "between two questions for the addresses of an endpoint's name"],
  ["--probe-ms <ms>", "between two probes of an endpoint"],
  ["--probe-timeout-ms <ms>", "longest wait for the answer to a probe"],
  ["--body-bytes-max <bytes>", "largest request body"],
  ["--body-idle-ms <ms>", "longest silence of a client within a request's body"],
  ["--body-rate-min <bytes>", "a second, that a body must come with; 0: any"],
  ["--ws-max <count>", "WebSocket tunnels"],
  ["--ws-per-tenant-max <count>", "WebSocket tunnels of one tenant"],
  ["--ws-idle-ms <ms>", "longest silence of a tunnel"],
  ["--ws-max-age-ms <ms>", "age at which a tunnel is ended; 0: never"],
  ["--clients-max <count>", "client connections"],
  ["--clients-per-ip-max <count>", "of one address; not of trusted proxies, nor of this machine"],
  ["--requests-per-connection-max <count>", "then a connection is closed in good order; 0: never"],
  ["--tls-default <name>", "the certificate for clients that name no host, or an unknown one"],
  ["--tls-client-ca <path>", "clients must show a certificate of this authority"],
  ["--tls-reload-ms <ms>", "certificates are read again this often, and when they change"],
  ["--cell-ca <path>", "the authority of cells with https: endpoints (default: the system's)"],
  ["--cell-cert <path>", "a certificate to show to cells"],
  ["--cell-key <path>", "its key"],
  [
    "--cell-tls-name <name>",
    "the name that certificates of cells must carry (default: of the URL)",
  ],
  [
    "--router-key-hours <hours>",
    "age at which its own key is exchanged (requests to cells are signed)",
  ],
  ["--jwks-refresh-ms <ms>", "between two readings of an issuer's keys"],
  ["--jwks-cooldown-ms <ms>", "between two that unknown keys in tokens ask for"],
  ["--workers <count|auto>", "threads that serve (auto: one per core); totals are divided"],
  ["--reuse-port <on|off>", "another router process may listen on the same addresses"],
  ["--drain-delay-ms <ms>", "from the end signal, which /readyz shows, to the first farewell"],
  ["--drain-announce-ms <ms>", "from the first farewell until nobody can connect any more"],
  ["--drain-ms <ms>", "from the first farewell until what is left is cut"],
];

const settingsWidth = Math.max(...settings.map(([flags]) => flags.length));

/** The router's own settings know their defaults: nothing is said twice. */
export const addHelp: AddHelp = async (noun) => {
  const { routerDefaults } = await import("../processes.ts");
  const defaults = await routerDefaults();
  const lines = settings.map(([flags, summary]) => {
    const value = defaults.get(flags.split(" ")[0] ?? "");
    const told = value === undefined || summary.includes("default:") ? "" : ` (default: ${value})`;
    return `  ${flags.padEnd(settingsWidth)}  ${summary}${told}`;
  });
  noun.addHelpText("after", ["", "Limits and times:", ...lines, ...settingsHelp].join("\n"));
};

const settingsHelp = [
  "",
  "Every setting may also stand in the environment: --listen as CELLFLEET_LISTEN.",
  "SIGTERM finishes what is in flight, SIGHUP reads a static table and certificates again,",
  "SIGUSR2 (or POST /workers/restart on the admin port) replaces the workers without a failed request.",
];

export const register: Register = (noun, bind) => {
  noun
    .allowExcessArguments()
    .option("--listen <host:port>", "where clients send requests")
    .option("--admin <host:port>", "health, metrics, table and explain")
    .option("--h2c <host:port>", "HTTP/2 without TLS, with prior knowledge")
    .option("--tls <host:port>", "HTTP/1 and HTTP/2 over TLS")
    .option("--tls-certs <path>", "a folder of NAME.crt and NAME.key, or a file that lists them")
    .option("--table <path>", "without a control plane: the routing table, a JSON file")
    .option("--control-plane <url>", "the control plane to follow")
    .option("--token <ref>", "its token: env:NAME, file:PATH or exec:COMMAND")
    .option("--trust-keys <path>", "public keys that may sign routing tables")
    .option("--state-dir <folder>", "where the last good table is kept")
    .option("--id <name>", "its name in the fleet");
  for (const [flags, summary] of settings) noun.addOption(new Option(flags, summary).hideHelp());
  bind(noun, async (session, _args, options) => {
    const flags = rawFlags(noun, options, session.io.env);
    if (flags["listen"] === undefined) {
      throw usage(
        "a router needs --listen and either --table or --control-plane",
        "cellctl router --listen 127.0.0.1:8080 --admin 127.0.0.1:8081 --table table.json",
        "cellctl router ls              (the fleet's routers)",
      );
    }
    const { runRouterProcess } = await import("../processes.ts");
    return runRouterProcess(session, flags);
  });
  bind(
    noun.command("ls").description("the fleet's routers, and the revision each serves"),
    async (session) => {
      const api = await session.api();
      await session.out.list(api.pages("/v1/routers", routerSchema), routerView);
      return 0;
    },
  );
  bind(noun.command("get <router>").description("one router"), async (session, [id = ""]) => {
    const api = await session.api();
    for await (const { items } of api.pages("/v1/routers", routerSchema)) {
      const found = items.find((router) => router.id === id);
      if (found === undefined) continue;
      await session.out.one(found, routerView);
      return 0;
    }
    throw new CellError("NOT_FOUND", `there is no router "${id}"`, {
      nextSteps: ["cellctl router ls"],
    });
  });
};
