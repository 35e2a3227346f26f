/** The agent's settings, checked once and reported all together. Secrets are references until they are used. */
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import { type CellId, cellIdSchema } from "../../contract/ids.ts";
import { parseSecretRef, secretRefRule } from "../../runtime/secret-ref.ts";
import type { TlsFiles } from "../../runtime/tls/followed.ts";
import { type SignatureMode, signatureModes } from "./router-signatures.ts";
import { parseServices, type ServiceConfig } from "./service-flags.ts";
import { parseStores, type StoreConfig } from "./stores/store-flags.ts";

export type Address = { readonly host: string; readonly port: number };
export type AgentConfig = {
  readonly cell: CellId;
  readonly listen: Address;
  readonly admin: Address;
  /** The application's services behind this agent; at least one. */
  readonly services: readonly ServiceConfig[];
  /** References, not secrets. */
  readonly databaseUrl: string;
  /** Further databases of this cell, under its guard like the first. */
  readonly stores: readonly StoreConfig[];
  readonly token: string;
  readonly controlPlane: string;
  /** As routers reach this agent; absent means as it listens. */
  readonly endpoint: string | undefined;
  /** Reference to a login that may only read, for `cellctl query`. */
  readonly queryDatabaseUrl: string | undefined;
  /** Reference to a login into the server of a physical standby, while that follows its origin. */
  readonly standbyServer?: string | undefined;
  /** A replica that is further behind is not used. */
  readonly replicaLagMs: number;
  /** Longest wait of an answer of tier gold for the partner. */
  readonly goldMs: number;
  /** Both, or neither: then the routing table is not followed and `GET /resolve` says so. */
  readonly table: { readonly trustKeys: string; readonly stateDir: string } | undefined;
  /** What becomes of requests without a valid signature of a router. */
  readonly routerSignatures: SignatureMode;
  /** Absent: the gate listens in clear. `ca`: of routers, who must then show a certificate. */
  readonly tls?: TlsFiles | undefined;
};

export const replicaLagMsDefault = 1000;
export const goldMsDefault = 2000;

const address = z.string().transform((raw, context): Address => {
  const [, host = "", portText = ""] = /^(\[[0-9a-fA-F:]+\]|[^:]+):(\d{1,5})$/.exec(raw) ?? [];
  const port = Number(portText);
  if (host !== "" && port <= 65_535) return { host: host.replace(/^\[|\]$/g, ""), port };
  context.addIssue({ code: "custom", message: "must be HOST:PORT" });
  return z.NEVER;
});
const origin = z.url({ protocol: /^https?$/ });
const reference = z.string().refine((raw) => parseSecretRef(raw) !== undefined, {
  message: `must be ${secretRefRule}`,
});
/** Repeated on the command line; in the environment one text with spaces between. */
const repeated = z
  .union([z.array(z.string()), z.string().transform((raw) => raw.split(/\s+/).filter(Boolean))])
  .default([]);
const milliseconds = z
  .union([z.number(), z.string().regex(/^\d{1,6}$/, "must be whole milliseconds")])
  .transform(Number);

const flagsSchema = z.strictObject({
  cell: cellIdSchema,
  listen: address,
  admin: address,
  upstream: repeated,
  health: repeated,
  replica: repeated,
  replicaLagMs: milliseconds.default(replicaLagMsDefault),
  goldMs: milliseconds.default(goldMsDefault),
  databaseUrl: reference,
  store: repeated,
  queryDatabaseUrl: reference.optional(),
  standbyServer: reference.optional(),
  token: reference,
  controlPlane: origin,
  endpoint: origin.optional(),
  trustKeys: z.string().min(1).optional(),
  stateDir: z.string().min(1).optional(),
  tlsCert: z.string().min(1).optional(),
  tlsKey: z.string().min(1).optional(),
  tlsClientCa: z.string().min(1).optional(),
  /** Absent: `require` where the table is followed, else `off`. */
  routerSignatures: z.enum(signatureModes).optional(),
});

/** `flags` as the command line gives them: `listen`, `databaseUrl`, …. Throws CONFIG_INVALID. */
export function parseAgentConfig(flags: unknown): AgentConfig {
  const parsed = flagsSchema.safeParse(flags);
  const lists = z
    .object({ upstream: repeated, health: repeated, replica: repeated })
    .safeParse(flags).data;
  const services = lists === undefined ? { problems: [] } : parseServices(lists);
  const stores = parseStores(
    z.object({ store: repeated }).safeParse(flags).data?.store ?? [],
    parsed.data?.databaseUrl,
  );
  const problems = [
    ...(parsed.error?.issues ?? []).map(
      (issue) => `--${dashed(issue.path.join("."))}: ${issue.message}`,
    ),
    ...("problems" in services ? services.problems : []),
    ...stores.problems,
    ...relationProblems(parsed.data),
    ...tlsProblems(parsed.data),
  ];
  if (!parsed.success || "problems" in services || problems.length > 0) {
    throw new CellError(
      "CONFIG_INVALID",
      `Settings of the agent are wrong: ${problems.join("; ")}.`,
      {
        nextSteps: ["cellctl agent --help"],
      },
    );
  }
  const { upstream: _u, health: _h, replica: _r, store: _s, ...others } = parsed.data;
  const { tlsCert: cert, tlsKey: key, tlsClientCa: ca, trustKeys, stateDir, ...rest } = others;
  return {
    ...rest,
    tls: cert === undefined ? undefined : { cert, key, ca },
    services: services.services,
    stores: stores.stores,
    endpoint: rest.endpoint,
    queryDatabaseUrl: rest.queryDatabaseUrl,
    routerSignatures: rest.routerSignatures ?? (trustKeys === undefined ? "off" : "require"),
    table: trustKeys === undefined || stateDir === undefined ? undefined : { trustKeys, stateDir },
  };
}

/** A client's certificate can be asked for under TLS only. */
function tlsProblems(flags: z.infer<typeof flagsSchema> | undefined): string[] {
  const { tlsCert, tlsKey, tlsClientCa } = flags ?? {};
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    return ["--tls-cert and --tls-key: need each other"];
  }
  return tlsClientCa !== undefined && tlsCert === undefined
    ? ["--tls-client-ca: needs --tls-cert and --tls-key"]
    : [];
}

/** A table on disk that nobody signed, or a signature over a table that is nowhere, is of no use. */
function relationProblems(flags: z.infer<typeof flagsSchema> | undefined): string[] {
  if (flags === undefined) return [];
  const { trustKeys, stateDir, routerSignatures = "off" } = flags;
  if ((trustKeys === undefined) !== (stateDir === undefined)) {
    return ["--trust-keys and --state-dir: need each other"];
  }
  if (trustKeys === undefined && routerSignatures !== "off") {
    return [`--router-signatures ${routerSignatures}: needs --trust-keys and --state-dir`];
  }
  return [];
}

const dashed = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
