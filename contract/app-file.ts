/**
 * `cellfleet.yaml`: what a cell of somebody's application consists of. It lies in the application's
 * own repository; `cellctl dev --app` runs it, once per cell.
 *
 * Relative paths count from the file's folder. Commands are given to `sh -c` in that folder.
 */
import { z } from "zod";
import { tenantIdSchema } from "./ids.ts";
import { guardModes } from "./routing-table.ts";
import { routeClasses } from "./service-route.ts";
import { tenantSourceSchema } from "./tenant-source.ts";

const name = z.string().regex(/^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/, {
  error: "must be 1 to 40 characters: a lower-case letter, then letters, digits and dashes",
});
const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, {
  error: "must be the name of an environment variable",
});
const command = z.string().trim().min(1, { error: "must be a command" }).max(2000);
const path = z
  .string()
  .min(1)
  .max(500)
  .refine((text) => !text.includes("\0"), { error: "must be a path" });

/** Set by whoever starts the processes; an application's own settings must not hide them. */
export const reservedVariables = [
  "PORT",
  "CELL_ID",
  "SERVICE",
  "INSTANCE",
  "CELLFLEET_AGENT_URL",
] as const;

const environment = z
  .record(
    variable,
    z.union([z.string().max(10_000), z.number(), z.boolean()]).transform((value) => String(value)),
  )
  .refine((given) => !Object.keys(given).some((one) => one.startsWith("CELLFLEET_")), {
    error: "names that begin with CELLFLEET_ are taken",
  })
  .default({});

const route = z
  .strictObject({
    host: z.string().min(1).max(253).optional(),
    pathPrefix: z.string().max(200).startsWith("/").optional(),
    class: z
      .enum(routeClasses)
      .refine((one) => one !== "global", {
        error:
          "a global service runs outside of the cells: start it by itself, and name it with cellctl routing set",
      })
      .optional(),
    deadlineMs: z.number().int().min(10).max(60_000).optional(),
  })
  .refine((one) => one.host !== undefined || one.pathPrefix !== undefined, {
    error: "a route has a host, a pathPrefix, or both",
  });

const service = z
  .strictObject({
    command,
    /** Processes per cell. */
    instances: z.number().int().min(1).max(16).default(1),
    /** Whatever answers below 500 there lives. */
    health: z.string().max(200).startsWith("/").default("/"),
    /** `false`: a worker, which listens nowhere. */
    port: z.boolean().default(true),
    /** Without any: this service answers what no route of another service names. */
    routes: z.array(route).max(50).default([]),
    env: environment,
  })
  .refine((one) => one.port || one.routes.length === 0, {
    path: ["routes"],
    error: "a service without a port cannot be routed to",
  });

const store = z.strictObject({
  /** Classes each table (`cellfleet.schema.yaml`). */
  manifest: path.default("cellfleet.schema.yaml"),
  /** Brings the database to the newest schema; run as the tables' owner, must be repeatable. */
  migrate: command.optional(),
  /** Files and folders that `migrate` reads; with them it is run again only when they change. */
  watch: z.array(path).max(100).default([]),
  keyColumn: z.string().min(1).max(63).default("tenant_id"),
  /** The variable that carries the URL of this database. */
  env: variable.default("DATABASE_URL"),
});

/** More listening processes than an agent takes upstreams would have none to speak to. */
const upstreamsMax = 64;

export const appFileSchema = z
  .strictObject({
    version: z.literal(1),
    name,
    /** Where in a request the tenant is named; as in routing. */
    tenantKey: z
      .array(tenantSourceSchema)
      .min(1)
      .max(20)
      .default([{ header: "x-tenant-id" }]),
    /** `row`: the application calls nothing. `strict`: each transaction begins with `cellfleet.enter`. */
    guardMode: z.enum(guardModes).default("row"),
    /** Made by `cellctl dev` when they are missing. */
    tenants: z.array(tenantIdSchema).max(1000).default([]),
    services: z.record(name, service).refine((all) => Object.keys(all).length > 0, {
      error: "at least one service",
    }),
    stores: z.record(name, store).default({}),
  })
  .superRefine((app, context) => {
    const fault = (path: string[], message: string) =>
      context.addIssue({ code: "custom", path, message });
    const listening = Object.entries(app.services).filter(([, one]) => one.port);
    if (listening.length === 0) fault(["services"], "at least one service listens on a port");
    const unrouted = listening.filter(([, one]) => one.routes.length === 0);
    for (const [other] of unrouted.slice(1)) {
      const first = unrouted[0]?.[0] ?? "";
      fault(
        ["services", other, "routes"],
        `say which requests are for ${other}: ${first} has no routes either, and only one service can answer all the rest`,
      );
    }
    const upstreams = listening.reduce((sum, [, one]) => sum + one.instances, 0);
    if (upstreams > upstreamsMax) {
      fault(["services"], `${upstreams} listening processes in a cell; at most ${upstreamsMax}`);
    }
    const variables = Object.entries(app.stores).map(([store, { env }]) => ({ store, env }));
    variables.forEach(({ store, env }, index) => {
      const taken = variables.slice(0, index).find((other) => other.env === env);
      if (taken !== undefined) {
        fault(
          ["stores", store, "env"],
          `${env} carries the URL of the store ${taken.store} already`,
        );
      }
    });
    const own = new Set<string>([...reservedVariables, ...variables.map(({ env }) => env)]);
    for (const [service, { env }] of Object.entries(app.services)) {
      for (const given of Object.keys(env).filter((one) => own.has(one))) {
        fault(["services", service, "env", given], `${given} is set for each process by cellctl`);
      }
    }
  });
/** As written. */
export type AppFileInput = z.input<typeof appFileSchema>;
export type AppFile = z.output<typeof appFileSchema>;
export type AppService = AppFile["services"][string];
export type AppStore = AppFile["stores"][string];
