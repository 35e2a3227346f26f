/** The control plane's settings, checked once and reported all together. Secrets stay references. */
import { hostname } from "node:os";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { failoverPolicies } from "../contract/failover-api.ts";
import { leaseModes } from "../contract/lease-mode.ts";
import { standbyApplications, standbyProviders } from "../contract/standby-api.ts";
import { logLevels } from "../runtime/log.ts";
import { parseSecretRef, secretRefRule } from "../runtime/secret-ref.ts";

export type Address = { readonly host: string; readonly port: number };

const address = z.string().transform((raw, context): Address => {
  const [, inner, outer, portText = ""] =
    /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(raw) ?? [];
  const host = inner ?? outer;
  const port = Number(portText);
  if (host !== undefined && port <= 65_535) return { host, port };
  context.addIssue({ code: "custom", message: "must be HOST:PORT" });
  return z.NEVER;
});

const reference = z
  .string()
  .refine((raw) => parseSecretRef(raw) !== undefined, `must be ${secretRefRule}`);

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `20m`, `90s`, `1500ms`: milliseconds. */
const duration = z.string().transform((raw, context): number => {
  const [, amount = "", unit = ""] = /^(\d{1,9})(ms|s|m|h)$/.exec(raw) ?? [];
  const factor = durationUnits[unit];
  if (factor !== undefined) return Number(amount) * factor;
  context.addIssue({ code: "custom", message: "must be a time such as 90s or 20m" });
  return z.NEVER;
});

const canaryWriteSchema = z.strictObject({ path: z.string().startsWith("/"), body: z.unknown() });
const canaryWrite = z.string().transform((raw, context) => {
  try {
    return canaryWriteSchema.parse(JSON.parse(raw));
  } catch {
    context.addIssue({ code: "custom", message: 'must be {"path": "/…", "body": …} as JSON' });
    return z.NEVER;
  }
});

const leaseTtlMsMin = 1000;
const leaseTtlMsMax = 24 * 3_600_000;
const promiseMsMin = 10_000;

const settingsSchema = z
  .strictObject({
    listen: address.prefault("127.0.0.1:8090"),
    admin: address.prefault("127.0.0.1:8091"),
    databaseUrl: reference,
    /** File with the private key that signs routing tables. */
    signingKey: z.string().min(1),
    providerUrl: z.url({ protocol: /^https?$/ }).optional(),
    providerToken: reference.optional(),
    bootstrapToken: reference.optional(),
    /** How long a grant lets a cell serve without this control plane. */
    leaseTtl: duration
      .refine((ms) => ms >= leaseTtlMsMin && ms <= leaseTtlMsMax, "must be between 1s and 24h")
      .prefault("4s"),
    /** How leases of cells that are made from now on end, where nobody says; those that exist keep theirs. */
    leaseMode: z.enum(leaseModes).default("timed"),
    /** How long a cell's partners promise it not to take over, when it has lost this control plane. */
    failsafePromise: duration
      .refine((ms) => ms >= promiseMsMin && ms <= leaseTtlMsMax, "must be between 10s and 24h")
      .prefault("20m"),
    /** How many partners each cell's standbys are spread over; 0: no standbys. */
    standbyPartners: z.coerce.number().int().min(0).max(3).default(3),
    /** How new standbys are kept: databases by bucket, or one whole server in one partner. */
    standby: z.enum(standbyProviders).default("logical"),
    /** Whether the application runs at a ready standby, or is started when a failover needs it. */
    standbyApplications: z.enum(standbyApplications).default("warm"),
    /** An answer of tier gold that no partner has confirmed: refused as unknown, or passed and counted. */
    goldPartnerLoss: z.enum(["refuse", "degrade"]).default("refuse"),
    /** The fleet's own, where a failure calls for a failover. */
    failover: z.enum(failoverPolicies).default("suggest"),
    /** After a takeover one tenant of each adopter is asked for this, through a public router. */
    canary: z.url({ protocol: /^https?$/ }).optional(),
    /** `{"path": "/orders", "body": {…}}`: posted for tenants labelled `cellfleet.canary=true`. */
    canaryWrite: canaryWrite.optional(),
    instance: z
      .string()
      .regex(/^[A-Za-z0-9._:-]{1,100}$/, "must be 1 to 100 letters, digits or . _ : -")
      .optional(),
    /** Hooks of stores may be commands, run by this process: whoever is admin of the fleet then runs them. */
    allowHookCommands: z.stringbool().or(z.boolean()).default(false),
    connections: z.coerce.number().int().min(4).max(1000).default(20),
    logLevel: z.enum(logLevels).default("info"),
  })
  .refine((one) => (one.providerUrl === undefined) === (one.providerToken === undefined), {
    path: ["provider-token"],
    message: "goes with --provider-url: give both or neither",
  });

export type ControlPlaneConfig = z.output<typeof settingsSchema>;

const dashed = (name: string): string => name.replace(/[A-Z]/g, (one) => `-${one.toLowerCase()}`);

/** `flags` as the command line gives them: `listen`, `databaseUrl`, …. Throws CONFIG_INVALID. */
export function parseControlPlaneConfig(flags: unknown): ControlPlaneConfig {
  const parsed = settingsSchema.safeParse(flags);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const name = issue.path.map((part) => dashed(String(part))).join(".");
    return name === "" ? issue.message : `--${name}: ${issue.message}`;
  });
  throw new CellError(
    "CONFIG_INVALID",
    `Settings of the control plane are wrong: ${problems.join("; ")}.`,
    { details: { problems }, nextSteps: ["cellctl control-plane --help"] },
  );
}

/** Who this process is, in the leader's seat and in logs: told apart also from its own predecessor. */
export const instanceName = (config: ControlPlaneConfig, chance: string): string =>
  config.instance ?? `${hostname()}-${process.pid}-${chance}`;
