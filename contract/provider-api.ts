/**
 * What the control plane asks of a provider that runs cells on this machine. The supervisor of
 * `cellctl dev` answers it on a loopback port, with a bearer token of its own.
 *
 * `POST /v1/cells/:id/:action` with `providerRequestSchema`, `GET /v1/cells/:id`. Every action is
 * idempotent: asking twice for a started cell starts nothing.
 */
import { z } from "zod";
import { cellIdSchema } from "./ids.ts";
import { serviceSchema, storeSchema } from "./routing-table.ts";

/**
 * Of an annex (contract/annex.ts): `create` makes its database in the host's server and its agent,
 * `serve` runs the application's processes on it, `rest` ends them, `destroy` removes all of it. It
 * starts, stops and dies with its host.
 *
 * Of an annex with a server of its own (provider `physical`): `copy` makes that server a copy of the
 * origin's, which follows it (one that cannot go on is made anew, one that was cut off is STATE_CONFLICT);
 * `settle`, when it was promoted, brings the annex's agent and, if it serves, the application from the
 * host's databases to it. Until then `serve` is only noted.
 *
 * `create`: a database from the template, app and agent processes. `stop`: orderly. `kill`: a crash
 * of application and database at once (SIGQUIT to PostgreSQL, SIGKILL to the rest). `start`: bring
 * back what is stopped or dead, on its own data. `destroy`: stop, and remove the data folder.
 */
export const providerActions = [
  "create",
  "start",
  "stop",
  "kill",
  "destroy",
  "serve",
  "rest",
  "copy",
  "settle",
] as const;
export type ProviderAction = (typeof providerActions)[number];

export const providerRequestSchema = z.strictObject({
  op: z.string().max(64),
  /** `create`: the agent's token for the control plane. */
  agentToken: z.string().max(200).optional(),
  /** `create` of an annex. */
  annex: z
    .object({
      origin: cellIdSchema,
      host: cellIdSchema,
      provider: z.enum(["logical", "physical"]),
    })
    .optional(),
});

/** `dead`: a process ended without being asked to; nobody starts it again but `start`. */
export const providedStates = ["absent", "creating", "running", "stopped", "dead"] as const;
export const providedCellSchema = z.object({
  id: cellIdSchema,
  state: z.enum(providedStates),
  text: z.string(),
  services: z.record(z.string(), serviceSchema),
  stores: z.record(z.string(), storeSchema),
  /** Of an annex: do the application's processes run on it? */
  serving: z.boolean().optional(),
  /** No process of it is left (application, agent, database): nothing there can commit any more. */
  provedDead: z.boolean().optional(),
});
export type ProvidedCell = z.infer<typeof providedCellSchema>;

/** `endpoints.json` in the data folder of `cellctl dev`. */
export const endpointsSchema = z.object({
  router: z.string(),
  routerAdmin: z.string(),
  controlPlane: z.string(),
  cells: z.record(
    z.string(),
    z.object({
      /** The cell's gate, where routers send requests. */
      url: z.string(),
      /** PostgreSQL URL, as the application's own role. */
      database: z.string(),
    }),
  ),
});
export type Endpoints = z.infer<typeof endpointsSchema>;
