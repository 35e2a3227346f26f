/** The agent's settings, checked once and reported all together. Secrets are references until they are used. */
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import { type CellId, cellIdSchema } from "../../contract/ids.ts";
import { parseSecretRef, secretRefRule } from "../../runtime/secret-ref.ts";

export type Address = { readonly host: string; readonly port: number };
export type AgentConfig = {
  readonly cell: CellId;
  readonly listen: Address;
  readonly admin: Address;
  /** The application. */
  readonly upstream: string;
  /** References, not secrets. */
  readonly databaseUrl: string;
  readonly token: string;
  readonly controlPlane: string;
  /** As routers reach this agent; absent means as it listens. */
  readonly endpoint: string | undefined;
};

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

const flagsSchema = z.strictObject({
  cell: cellIdSchema,
  listen: address,
  admin: address,
  // The application stands beside its agent: TLS between them would only be in the way.
  upstream: z.url({ protocol: /^http$/ }),
  databaseUrl: reference,
  token: reference,
  controlPlane: origin,
  endpoint: origin.optional(),
});

/** `flags` as the command line gives them: `listen`, `databaseUrl`, …. Throws CONFIG_INVALID. */
export function parseAgentConfig(flags: unknown): AgentConfig {
  const parsed = flagsSchema.safeParse(flags);
  if (parsed.success) return { ...parsed.data, endpoint: parsed.data.endpoint };
  const problems = parsed.error.issues.map(
    (issue) => `--${dashed(issue.path.join("."))}: ${issue.message}`,
  );
  throw new CellError(
    "CONFIG_INVALID",
    `Settings of the agent are wrong: ${problems.join("; ")}.`,
    {
      nextSteps: ["cellctl agent --help"],
    },
  );
}

const dashed = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
