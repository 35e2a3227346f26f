/**
 * Where a tenant is served, as routers see it. A tenant of slots or ranges need not be registered:
 * its container owns it, so the route is asked for instead.
 */

import type { z } from "zod";
import { resolutionSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { type Api, apiPath } from "./api.ts";

export type Resolution = z.infer<typeof resolutionSchema>;

export async function locate(
  api: Api,
  tenant: string,
  keyspace: string | undefined,
): Promise<Resolution> {
  const query = { keyspace };
  try {
    return await api.get(apiPath`/v1/tenants/${tenant}/placement`, resolutionSchema, { query });
  } catch (error) {
    if (!(error instanceof CellError) || error.code !== "TENANT_UNKNOWN") throw error;
    return resolveRoute(api, { tenant, keyspace });
  }
}

export const resolveRoute = (
  api: Api,
  question: Readonly<Record<string, string | undefined>>,
): Promise<Resolution> => api.get("/v1/route/resolve", resolutionSchema, { query: question });
