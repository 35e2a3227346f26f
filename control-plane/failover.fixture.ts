/**
 * For tests of failovers as they are decided: the real API over a real database, four cells, the standbys of
 * the first, and what witnesses said. No executor runs: what is recorded stays as it was recorded.
 */
import { sql } from "drizzle-orm";
import type { z } from "zod";
import { startTestPostgres } from "../tests/postgres.ts";
import { auditEndpoints } from "./api/audit.ts";
import { cellEndpoints } from "./api/cells.ts";
import { failoverEndpoints } from "./api/failover.ts";
import { leaseModeEndpoints } from "./api/lease-mode.ts";
import { recoveryEndpoints } from "./api/recovery.ts";
import { routingEndpoints } from "./api/routing.ts";
import { statusEndpoints } from "./api/status.ts";
import { tenantLifeEndpoints } from "./api/tenant-life.ts";
import { type ControlFixture, openCell, startControl } from "./control.fixture.ts";
import { confirmedGone, wellSeen } from "./core/failover/sight.fixture.ts";
import { saveVerdicts } from "./store/failover/witnesses.ts";

const timeoutMs = 30_000;
export const tenants = Array.from({ length: 16 }, (_, index) => `t-${index}`);

export type FailoverApi = Awaited<ReturnType<typeof startFailoverApi>>;

export async function startFailoverApi() {
  const postgres = await startTestPostgres();
  const control = await startControl(await postgres.createDatabase("failover"), (context) => [
    ...failoverEndpoints(context),
    ...cellEndpoints(context),
    ...statusEndpoints(context),
    ...routingEndpoints(context),
    ...auditEndpoints(context),
    ...leaseModeEndpoints(context),
    ...recoveryEndpoints(context),
    ...tenantLifeEndpoints(context),
  ]);
  const client = await control.client("admin");
  const run = async (text: string) => (await control.database.read.execute(sql.raw(text))).rows;
  for (const id of ["cell-01", "cell-02", "cell-03", "cell-04"])
    await openCell(control.database, id);
  return {
    ...{ postgres, control, client, run },
    get: <T>(path: string, schema: z.ZodType<T>) =>
      client.call({ method: "GET", path, schema, timeoutMs }),
    send: <T>(
      method: "POST" | "PUT",
      path: string,
      body: unknown,
      schema: z.ZodType<T>,
      headers: Readonly<Record<string, string>> = {},
    ) => client.call({ method, path, body, schema, timeoutMs, headers }),
    count: async (table: string, where = "true") =>
      Number(
        (
          await run(`select count(*)::int as n from cellfleet_control.${table} where ${where}`)
        )[0]?.["n"],
      ),
    close: async () => {
      await control.close();
      await postgres.stop();
    },
  };
}

/** cell-01 has died two seconds ago with sixteen tenants; two partners are in step and say that it is silent. */
export async function cellOneDies({
  control,
  run,
}: Pick<FailoverApi, "run"> & { readonly control: Pick<ControlFixture, "database"> }) {
  const schema = "cellfleet_control";
  await run(`truncate ${schema}.failover, ${schema}.standby, ${schema}.agent, ${schema}.placement,
               ${schema}.failover_desk, ${schema}.router_sight, ${schema}.event`);
  await run(`delete from ${schema}.op`);
  await run(`update ${schema}.fleet set mode = 'normal'`);
  await run(`update ${schema}.cell set state = 'active', stage = 'enforce', stage_applied = 'enforce',
               lease_granted_at = null, lease_mode = 'timed', lease_mode_number = 0, lease_mode_acked = 0,
               annex_origin = null, annex_host = null, revoking = false,
               health = case id when 'cell-01' then 'down' else 'healthy' end,
               used_tenants = case id when 'cell-01' then ${tenants.length} else 0 end`);
  const placed = tenants
    .map(
      (id) =>
        `('default/tenant/${id}', 'default', 'tenant', '${id}', 'cell-01', 1, 'active', 1, '')`,
    )
    .join(",");
  await run(`insert into ${schema}.placement
               (key, keyspace, kind, value, cell, epoch, state, revision, op) values ${placed}`);
  await run(`insert into ${schema}.agent (cell, instance, endpoint, is_primary, seen_at)
             select id, id || '-agent', 'http://127.0.0.1:1', true,
                    clock_timestamp() - case id when 'cell-01' then interval '2 s' else '0 s' end
               from ${schema}.cell where annex_host is null`);
  await run(`insert into ${schema}.standby
               (annex, origin, host, provider, bucket_lo, bucket_hi, state, listed_at,
                lag_bytes, heartbeat_age_ms, sees, reported_at)
             values ('sb-cell-01-cell-02', 'cell-01', 'cell-02', 'logical', 0, 127, 'ready', 1, 400, 2300, 'silent', clock_timestamp()),
                    ('sb-cell-01-cell-03', 'cell-01', 'cell-03', 'logical', 128, 255, 'ready', 1, 400, 2300, 'silent', clock_timestamp())`);
  const others = ["cell-02", "cell-03", "cell-04"].map(wellSeen);
  await saveVerdicts(control.database.read, 1, [confirmedGone("cell-01"), ...others]);
}
