/** What `cellctl dev` is asked to start, checked before anything is started. */
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { failoverPolicies } from "../contract/failover-api.ts";
import { standbyApplications, standbyProviders } from "../contract/standby-api.ts";

const port = z.coerce.number().int().min(0).max(65_535);

const devFlagsSchema = z
  .object({
    /** 0: control plane and routers alone, for cells that run elsewhere. */
    cells: z.coerce.number().int().min(0).max(20).default(3),
    routers: z.coerce.number().int().min(1).max(10).default(1),
    /** 0: the system chooses, and the data folder remembers. */
    port: port.default(8080),
    adminPort: port.default(8081),
    controlPlanePort: port.default(8090),
    data: z.string().min(1).optional(),
    /** A temporary data folder, removed at the end. */
    ephemeral: z.boolean().default(false),
    demo: z.boolean().default(true),
    /** A `cellfleet.yaml`, or the folder that has one: runs that application in place of the sample. */
    app: z.string().min(1).optional(),
    /** How many partners each cell's standbys are spread over; with fewer cells, fewer. */
    standbyPartners: z.coerce.number().int().min(0).max(3).default(3),
    standby: z.enum(standbyProviders).default("logical"),
    standbyApplications: z.enum(standbyApplications).default("warm"),
    failover: z.enum(failoverPolicies).default("auto"),
  })
  .refine((flags) => !(flags.ephemeral && flags.data !== undefined), {
    error: "--ephemeral uses a folder of its own: leave out --data",
  })
  .refine((flags) => distinct([flags.port, flags.adminPort, flags.controlPlanePort]), {
    error: "--port, --admin-port and --control-plane-port must differ",
  });
export type DevFlags = z.infer<typeof devFlagsSchema>;
/** As given: texts of a command line do, absent means the default. */
export type DevFlagsInput = { readonly [name in keyof DevFlags]?: DevFlags[name] | string };

export function parseDevFlags(input: DevFlagsInput): DevFlags {
  const parsed = devFlagsSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    (issue) =>
      `${issue.path.map((part) => `--${dashed(String(part))}: `).join("")}${issue.message}`,
  );
  throw new CellError("CONFIG_INVALID", problems.join("\n"), {
    nextSteps: ["cellctl dev --help"],
  });
}

const dashed = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const distinct = (ports: readonly number[]): boolean => {
  const chosen = ports.filter((one) => one !== 0);
  return new Set(chosen).size === chosen.length;
};
