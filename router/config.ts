/**
 * The router's settings: texts from flags in, one checked value out. Everything wrong is reported at
 * once, with setting, value and rule; relations between settings are rules too.
 */
import { BlockList } from "node:net";
import { availableParallelism } from "node:os";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { routerIdSchema } from "../contract/ids.ts";
import { plainIssue } from "../contract/plain-issue.ts";
import { logLevels } from "../runtime/log.ts";
import { parseSecretRef, secretRefRule } from "../runtime/secret-ref.ts";
import { type AccessLogPolicy, accessLogModes } from "./observe/access-log.ts";
import type { TracingSettings } from "./observe/tracing.ts";

export type Address = { readonly host: string; readonly port: number };

/** `HOST:PORT`, with brackets around an IPv6 host; port 0 lets the system choose. */
const addressSchema = z.string().transform((raw, context): Address => {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(raw);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host !== undefined && port <= 65_535) return { host, port };
  context.addIssue({ code: "custom", message: "must be HOST:PORT" });
  return z.NEVER;
});

const secretRef = z
  .string()
  .refine((raw) => parseSecretRef(raw) !== undefined, `must be ${secretRefRule}`);

/** Milliseconds or a count, from text or number. */
const whole = (least: number, most: number) => z.coerce.number().int().min(least).max(most);

/** 0 to 1. */
const share = z.coerce.number().min(0).max(1);

const cidrs = z.string().transform((raw, context): BlockList => {
  const list = new BlockList();
  for (const part of raw.split(",").map((one) => one.trim())) {
    if (part === "") continue;
    try {
      const [address = "", bits] = part.split("/");
      const family = address.includes(":") ? "ipv6" : "ipv4";
      list.addSubnet(address, Number(bits ?? (family === "ipv6" ? 128 : 32)), family);
    } catch {
      // Node throws for what is no network; which one it was is said below.
      context.addIssue({ code: "custom", message: `${part} is not an address or network` });
    }
  }
  return list;
});

const settingsSchema = z.strictObject({
  id: routerIdSchema.optional(),
  listen: addressSchema,
  admin: addressSchema,
  h2c: addressSchema.optional(),
  /** HTTP/1 and HTTP/2 over TLS, as the client chooses. */
  tls: addressSchema.optional(),
  /** A folder of NAME.crt and NAME.key, or a file that lists them. */
  tlsCerts: z.string().min(1).optional(),
  /** Of those the one for clients that name no host, or one that no certificate has. */
  tlsDefault: z.string().min(1).optional(),
  /** Clients must show a certificate of this authority. */
  tlsClientCa: z.string().min(1).optional(),
  /** Certificates are read again this often, and when their folder changes. */
  tlsReloadMs: whole(100, 86_400_000).default(60_000),
  /** Towards cells whose endpoints are `https:`: whom to trust, what to show, the name to expect. */
  cellCa: z.string().min(1).optional(),
  cellCert: z.string().min(1).optional(),
  cellKey: z.string().min(1).optional(),
  cellTlsName: z.hostname().optional(),
  table: z.string().min(1).optional(),
  controlPlane: z.url({ protocol: /^https?$/ }).optional(),
  token: secretRef.optional(),
  trustKeys: z.string().min(1).optional(),
  stateDir: z.string().min(1).optional(),
  /** Peers whose X-Forwarded-*, Forwarded and X-Request-Id are believed. */
  trustedProxies: cidrs.default(new BlockList()),
  /** `x-cell` and `x-cell-epoch` on forwarded answers. */
  cellHeaders: z.enum(["on", "off"]).default("on"),
  /** `errors`: only what did not end well. */
  accessLog: z.enum(accessLogModes).default("on"),
  /** Share of the requests that ended well (below 400) which get a line; the others always do. */
  accessLogSample: share.default(1),
  /** An OpenTelemetry collector (OTLP over HTTP) that gets traces; without it there are none. */
  otlp: z.url({ protocol: /^https?$/ }).optional(),
  /** Share of the requests without a parent that are traced; a parent's own word counts. */
  traceSample: share.default(1),
  /** `cellfleet.tenant` on spans. */
  traceTenants: z.enum(["on", "off"]).default("off"),
  /** Requests that `/explain?request=` remembers, and the memory they may take. */
  explainRequestsMax: whole(100, 1_000_000).default(10_000),
  explainBytesMax: whole(100_000, 1e10).default(32 * 1024 * 1024),
  logLevel: z.enum(logLevels).default("info"),
  holdMs: whole(0, 60_000).default(10_000),
  /** While keys of a cell that is gone are given to their next owners; 0: they are refused at once. */
  handoverMs: whole(0, 60_000).default(5000),
  heldPerKeyMax: whole(1, 100_000).default(512),
  heldMax: whole(1, 1_000_000).default(4096),
  /** Memory that they may take, by their declared sizes; a body is not read while it waits. */
  heldBytesPerKeyMax: whole(10_000, 1e10).default(32 * 1024 * 1024),
  heldBytesMax: whole(10_000, 1e10).default(128 * 1024 * 1024),
  /** A request that a cell's gate did not admit waits so long for news of its placement. */
  staleMs: whole(0, 60_000).default(1000),
  fanOutsMax: whole(1, 10_000).default(16),
  connectMs: whole(10, 60_000).default(2000),
  headMs: whole(10, 3_600_000).default(30_000),
  queueMs: whole(0, 60_000).default(2000),
  pendingMax: whole(0, 100_000).default(256),
  connectionsMax: whole(1, 10_000).default(256),
  /** Of one tenant; 0: no ceiling. The table's policy may say less. */
  tenantInflightMax: whole(0, 1_000_000).default(512),
  /** Requests under way in all; close to it the least important are refused first. */
  inflightMax: whole(1, 1_000_000).default(8192),
  /** So late a turn of the event loop, several times in a row, is overload; 0: do not look. */
  shedLateMs: whole(0, 60_000).default(300),
  /** From a request's head to its answer's; a route or the client may ask for less. 0: none. */
  deadlineMs: whole(0, 3_600_000).default(0),
  /** Between two probes of an endpoint whose service names a path for them; longest wait for an answer. */
  probeMs: whole(10, 3_600_000).default(5000),
  probeTimeoutMs: whole(10, 60_000).default(2000),
  /** Between two questions for the addresses of an endpoint's host name. */
  dnsMs: whole(100, 3_600_000).default(10_000),
  /**
   * Acknowledged writes that are remembered, for the report after a failover: of one cell, of all, and for
   * how long before the cell's last one.
   */
  ackedMax: whole(1, 10_000_000).default(20_000),
  ackedTotalMax: whole(1, 10_000_000).default(100_000),
  ackedMs: whole(1000, 3_600_000).default(60_000),
  /** Of all endpoints of a cell together: under way, and waiting for that. */
  cellInflightMax: whole(1, 100_000).default(1024),
  cellPendingMax: whole(0, 100_000).default(256),
  /** Answers kept for routes that may be answered stale, all together. */
  staleBytesMax: whole(0, 1e10).default(64 * 1024 * 1024),
  bodyBytesMax: whole(0, 1e12).default(100 * 1024 * 1024),
  /** Longest silence of a client within a request's body. */
  bodyIdleMs: whole(10, 3_600_000).default(30_000),
  /** Bytes a second that a body must come with on the whole, ten seconds after its begin; 0: any. */
  bodyRateMin: whole(0, 1e9).default(1024),
  /** WebSocket tunnels: in all, of one tenant. */
  wsMax: whole(0, 1_000_000).default(5000),
  wsPerTenantMax: whole(1, 1_000_000).default(1000),
  /** Longest silence of a tunnel in both directions. */
  wsIdleMs: whole(10, 86_400_000).default(3_600_000),
  /** A tunnel is ended at this age, up to a tenth earlier; 0: at none. */
  wsMaxAgeMs: whole(0, 30 * 86_400_000).default(0),
  clientsMax: whole(1, 1_000_000).default(10_000),
  /** Connections of one address (of IPv6: of one /64); trusted proxies and this machine are not counted. */
  clientsPerIpMax: whole(1, 1_000_000).default(256),
  /** A connection is closed in good order after so many requests; 0: never. */
  requestsPerConnectionMax: whole(0, 1_000_000_000).default(0),
  /** The router's own key, with which it signs requests to cells, is exchanged at this age. */
  routerKeyHours: whole(1, 24 * 3650).default(24 * 30),
  /** Between two readings of an issuer's keys; and between two that unknown keys in tokens ask for. */
  jwksRefreshMs: whole(1000, 86_400_000).default(600_000),
  jwksCooldownMs: whole(100, 3_600_000).default(30_000),
  /** Threads that serve; `auto`: one per core. Totals are divided among them: workers/share.ts. */
  workers: z
    .union([z.literal("auto").transform(() => availableParallelism()), whole(1, 256)])
    .default(1),
  /** Another process may listen on the same addresses: for a restart of the whole process. */
  reusePort: z.enum(["on", "off"]).default("off"),
  /** From the signal, which `/readyz` shows at once, to the first farewell: time to notice. */
  drainDelayMs: whole(0, 600_000).default(5000),
  /** From the first farewell until nobody can connect any more. */
  drainAnnounceMs: whole(0, 600_000).default(10_000),
  /** From the first farewell until what is left is cut. */
  drainMs: whole(0, 3_600_000).default(30_000),
});

export type TableSource =
  | { readonly kind: "static"; readonly file: string }
  | {
      readonly kind: "control-plane";
      readonly url: string;
      readonly token: string;
      readonly trustKeys: string;
      readonly stateDir: string;
    };

type Settings = z.output<typeof settingsSchema>;
export type RouterConfig = Omit<
  Settings,
  | "id"
  | "table"
  | "controlPlane"
  | "token"
  | "trustKeys"
  | "stateDir"
  | "cellHeaders"
  | "reusePort"
  | "accessLog"
  | "accessLogSample"
  | "otlp"
  | "traceSample"
  | "traceTenants"
> & {
  readonly id: string;
  readonly source: TableSource;
  readonly cellHeaders: boolean;
  readonly reusePort: boolean;
  readonly accessLog: AccessLogPolicy;
  /** Undefined: traces are off. */
  readonly tracing: TracingSettings | undefined;
};

/** Of the settings that have one, as it would be written: for help and for the page of settings. */
export function routerDefaults(): ReadonlyMap<string, string> {
  const settings = settingsSchema.parse({ listen: "127.0.0.1:0", admin: "127.0.0.1:0" });
  return new Map(
    Object.entries(settings).flatMap(([name, value]) =>
      typeof value === "string" || typeof value === "number" ? [[flagName(name), `${value}`]] : [],
    ),
  );
}

/** Throws CONFIG_INVALID with everything that is wrong. */
export function parseRouterConfig(flags: unknown): RouterConfig {
  const parsed = settingsSchema.safeParse(flags);
  const problems = parsed.success
    ? []
    : parsed.error.issues.map((issue) => issueText(issue, flags));
  const settings = parsed.success ? parsed.data : undefined;
  const source = tableSource(isRecord(flags) ? flags : {}, problems);
  if (settings !== undefined) problems.push(...relationProblems(settings));
  if (settings === undefined || source === undefined || problems.length > 0) {
    throw new CellError(
      "CONFIG_INVALID",
      `The router's settings are wrong: ${problems.join("; ")}.`,
      {
        details: { problems },
        nextSteps: ["cellctl router --help"],
      },
    );
  }
  const { id, table, controlPlane, token, trustKeys, stateDir, ...rest } = settings;
  return {
    ...rest,
    id: id ?? "router",
    source,
    cellHeaders: settings.cellHeaders === "on",
    reusePort: settings.reusePort === "on",
    ...observed(settings),
  };
}

const observed = ({
  accessLog,
  accessLogSample,
  otlp,
  traceSample,
  traceTenants,
}: Settings): Pick<RouterConfig, "accessLog" | "tracing"> => ({
  accessLog: { mode: accessLog, share: accessLogSample },
  tracing:
    otlp === undefined
      ? undefined
      : { url: otlp, share: traceSample, tenants: traceTenants === "on" },
});

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null;

const flagName = (name: string): string =>
  `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function issueText(issue: z.core.$ZodIssue, flags: unknown): string {
  if (issue.code === "unrecognized_keys") {
    return `there is no setting ${issue.keys.map(flagName).join(", ")}`;
  }
  const [name] = issue.path;
  return `${flagName(String(name))} ${plainIssue(issue, flags).text}`;
}

const remote = ["controlPlane", "token", "trustKeys", "stateDir"] as const;

function tableSource(flags: Record<string, unknown>, problems: string[]): TableSource | undefined {
  const { table: file } = { table: flags["table"] };
  const given = remote.filter((name) => flags[name] !== undefined);
  if (typeof file === "string") {
    if (given.length > 0) problems.push(`--table excludes ${given.map(flagName).join(", ")}`);
    return { kind: "static", file };
  }
  const wanted = [...remote, "id"];
  const missing = wanted.filter((name) => flags[name] === undefined);
  if (given.length === 0) {
    problems.push("either --table FILE or --control-plane URL (and its settings) is needed");
    return undefined;
  }
  if (missing.length > 0) problems.push(`${missing.map(flagName).join(", ")} is missing`);
  return {
    kind: "control-plane",
    url: String(flags["controlPlane"]).replace(/\/+$/, ""),
    token: String(flags["token"]),
    trustKeys: String(flags["trustKeys"]),
    stateDir: String(flags["stateDir"]),
  };
}

function relationProblems(settings: Settings): string[] {
  const problems: string[] = [];
  const { heldPerKeyMax, heldMax, heldBytesPerKeyMax, heldBytesMax } = settings;
  if (heldPerKeyMax > heldMax) problems.push("--held-per-key-max is above --held-max");
  if (heldBytesPerKeyMax > heldBytesMax) {
    problems.push("--held-bytes-per-key-max is above --held-bytes-max");
  }
  if (settings.ackedMax > settings.ackedTotalMax) {
    problems.push("--acked-max is above --acked-total-max");
  }
  return [...problems, ...publicAdmin(settings), ...tlsProblems(settings)];
}

/** Each needs the other; what stands alone was meant to do something that it does not. */
function tlsProblems(settings: Settings): string[] {
  const both = (one: keyof Settings, other: keyof Settings): string[] =>
    (settings[one] === undefined) === (settings[other] === undefined)
      ? []
      : [`${flagName(one)} and ${flagName(other)} need each other`];
  const alone = (["tlsDefault", "tlsClientCa"] as const).filter(
    (name) => settings[name] !== undefined && settings.tls === undefined,
  );
  return [
    ...both("tls", "tlsCerts"),
    ...both("cellCert", "cellKey"),
    ...alone.map((name) => `${flagName(name)} needs --tls`),
  ];
}

/** What the admin port tells is for operators: no listener of clients may reach it, by no spelling. */
function publicAdmin(settings: Settings): string[] {
  const { admin } = settings;
  return Object.entries(settings).flatMap(([name, value]) =>
    name !== "admin" && isAddress(value) && overlap(value, admin)
      ? [
          `${flagName(name)} and --admin are the same address, ${value.host}:${value.port} and ${admin.host}:${admin.port}`,
        ]
      : [],
  );
}

const isAddress = (value: unknown): value is Address =>
  isRecord(value) && typeof value["host"] === "string" && typeof value["port"] === "number";

const everywhere: ReadonlySet<string> = new Set(["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "*"]);
const loopback: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "::1"]);

function overlap(one: Address, other: Address): boolean {
  if (one.port === 0 || one.port !== other.port) return false;
  const hosts = [one, other].map(({ host }) => host.toLowerCase());
  return (
    hosts[0] === hosts[1] ||
    hosts.some((host) => everywhere.has(host)) ||
    hosts.every((host) => loopback.has(host))
  );
}
