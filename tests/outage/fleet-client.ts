/** What an operator reads of standbys and failovers, by the control API of a local fleet. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { cliTokenFile } from "../../cli/fleet.ts";
import { acceptedSchema, importResultSchema, list, opSchema } from "../../contract/control-api.ts";
import { type Failover, failoverSchema } from "../../contract/failover-api.ts";
import { type Standby, standbySchema } from "../../contract/standby-api.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import type { TestFleet } from "../fleet.ts";

const timeoutMs = 60_000;

export type FleetClient = Awaited<ReturnType<typeof openFleetClient>>;

export async function openFleetClient(fleet: Pick<TestFleet, "dataDir" | "endpoints">) {
  const token = (await readFile(join(fleet.dataDir, cliTokenFile), "utf8")).trim();
  const origin = (await fleet.endpoints()).controlPlane.replace(/\/+$/, "");
  const client = createJsonClient({ origin, token, unreachable: "CONTROL_PLANE_UNREACHABLE" });
  const get = <T>(path: string, schema: z.ZodType<T>): Promise<T> =>
    client.call({ method: "GET", path, schema, timeoutMs });
  return {
    standbys: async (): Promise<readonly Standby[]> =>
      (await get("/v1/standbys", list(standbySchema))).items,
    failovers: async (): Promise<readonly Failover[]> =>
      (await get("/v1/failovers", list(failoverSchema))).items,
    failover: (id: string): Promise<Failover> => get(`/v1/failovers/${id}`, failoverSchema),
    /** As `cellctl cell kill`, without a process of its own, which on a busy machine takes seconds to start. */
    kill: (cell: string) =>
      client.call({
        ...{ method: "POST", path: `/v1/cells/${cell}/kill`, body: {}, timeoutMs },
        ...{ schema: acceptedSchema, headers: { "idempotency-key": `kill-${cell}` } },
      }),
    op: (id: string) => get(`/v1/ops/${id}`, opSchema),
    /** One line per tenant, placed where `cell` says. */
    importTenants: async (
      tenants: ReadonlyArray<{ readonly id: string; readonly cell: string }>,
    ) => {
      const response = await fetch(`${origin}/v1/tenants/import`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${token}`,
          "content-type": "application/x-ndjson",
          "idempotency-key": `import-${tenants[0]?.id}`,
        },
        body: tenants.map((one) => JSON.stringify(one)).join("\n"),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`import: ${response.status} ${text}`);
      return importResultSchema.parse(JSON.parse(text));
    },
    close: client.close,
  };
}

/** Public origins of all routers of a local fleet. */
export async function routerOrigins(fleet: Pick<TestFleet, "dataDir">): Promise<readonly string[]> {
  const file = join(fleet.dataDir, "ports.json");
  const ports = z.record(z.string(), z.number()).parse(JSON.parse(await readFile(file, "utf8")));
  return Object.entries(ports)
    .filter(([name]) => /^router-\d+$/.test(name))
    .map(([, port]) => `http://127.0.0.1:${port}`);
}
