/** What kind of request a path or host carries, for which service, and how it is treated. */
import { z } from "zod";
import { cellIdSchema } from "./ids.ts";

export const defaultService = "default";

/**
 * What kind of request a route carries. `tenant`: to the tenant's cell. `read`: the same, and the
 * cell's agent may answer from a replica that is fresh enough for this session. Of the others none
 * looks for a tenant. `any-cell`: to one of the cells that offer the service, the same in all of them
 * (a login page, static files). `public`: to the one cell that the route names. `global`: to a service
 * outside of all cells (`globalServices`). `fan-out`: a GET that goes to every cell; the answer names
 * the cells that are missing in it.
 */
export const routeClasses = ["tenant", "read", "any-cell", "public", "global", "fan-out"] as const;
export type RouteClass = (typeof routeClasses)[number];

/** Under overload the lowest are refused first; a route without one is `normal`. */
export const priorities = ["critical", "high", "normal", "low"] as const;
export type Priority = (typeof priorities)[number];

/**
 * What a GET or HEAD is answered with while its cell cannot answer, instead of a 503: the last good answer of
 * the same cell to the same tenant, marked by `Age` and `Warning`, if one is kept and not older than
 * `staleSeconds`; else `static`. Never an answer of another cell or tenant.
 */
export const fallbackSchema = z
  .strictObject({
    staleSeconds: z.number().int().min(1).max(86_400).optional(),
    static: z
      .strictObject({
        status: z.number().int().min(200).max(599),
        contentType: z.string().regex(/^[\w!#$&^.+/-]{1,100}(; ?[\w=.+"-]{1,60})?$/),
        body: z.string().max(16_384),
      })
      .optional(),
  })
  .refine((one) => one.staleSeconds !== undefined || one.static !== undefined, {
    message: "needs staleSeconds or static",
  });
export type Fallback = z.infer<typeof fallbackSchema>;

/** A request's service and class, by host or path prefix; without a match it is `default`, `tenant`. */
export const serviceRouteSchema = z
  .strictObject({
    host: z.string().max(253).optional(),
    pathPrefix: z.string().max(200).startsWith("/").optional(),
    service: z.string().min(1).max(40),
    /** Absent means `tenant`. */
    class: z.enum(routeClasses).optional(),
    /** Class `public`, and no other: the cell that answers. */
    cell: cellIdSchema.optional(),
    /**
     * From the request's head to the answer's, all attempts and waits together; 504 after it. Class
     * `fan-out`: cells that have not answered by then are missing, default 2,000 ms.
     */
    deadlineMs: z.number().int().min(10).max(60_000).optional(),
    priority: z.enum(priorities).optional(),
    fallback: fallbackSchema.optional(),
  })
  .refine((one) => (one.class === "public") === (one.cell !== undefined), {
    message: "class public names its cell, and no other class does",
  });
export type ServiceRoute = z.infer<typeof serviceRouteSchema>;

/** The first route whose host and path prefix both fit. `hostname` in lower case, `path` as sent. */
export const matchRoute = (
  routes: readonly ServiceRoute[],
  hostname: string,
  path: string,
): ServiceRoute | undefined =>
  routes.find(
    ({ host, pathPrefix }) =>
      (host === undefined || hostFits(host.toLowerCase(), hostname)) &&
      (pathPrefix === undefined || prefixFits(pathPrefix, path)),
  );

/** `*.example.com` fits every name below it. */
const hostFits = (pattern: string, hostname: string): boolean =>
  pattern.startsWith("*.") ? hostname.endsWith(pattern.slice(1)) : hostname === pattern;

/** `/api` fits `/api`, `/api/x` and `/api?x`, not `/apis`. */
function prefixFits(prefix: string, path: string): boolean {
  if (!path.startsWith(prefix)) return false;
  const next = path.charAt(prefix.length);
  return prefix.endsWith("/") || next === "" || next === "/" || next === "?";
}
