/**
 * Looks, again and again, whether a published route names an active owner (I4): the route as the control
 * plane has it and as a router serves it, and the named cell's own database between two equal looks.
 *
 * The three are not read at one moment. What is judged is a route that was the same before and after the
 * look at the cell: then the cell must have been active at that epoch all the while.
 */

import pg from "pg";
import { Agent, request } from "undici";
import { z } from "zod";
import { defaultKeyspace, parseTenantId } from "../../contract/ids.ts";
import { tenantKey } from "../../contract/placement-key.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { MoveClient } from "./move-client.ts";

const routeSchema = z.object({
  cell: z.string(),
  epoch: z.number(),
  state: z.string(),
  revision: z.number(),
});
type Route = z.infer<typeof routeSchema>;

export type OwnersSeen = {
  readonly looks: number;
  /** Looks at a route that named an owner, and named the same one after it. */
  readonly judged: number;
  /** Empty: every route named an active owner. */
  readonly faults: readonly string[];
};
export type OwnerWatch = { readonly stop: () => Promise<OwnersSeen> };

const everyMs = 10;

export async function watchOwners(options: {
  readonly client: Pick<MoveClient, "resolve">;
  /** Admin port of a router. */
  readonly routerAdmin: string;
  /** URLs of cells' databases, as a role that may read ownership. */
  readonly databases: ReadonlyMap<string, string>;
  readonly tenants: readonly string[];
}): Promise<OwnerWatch> {
  const over = new AbortController();
  const dispatcher = new Agent({ connections: 8 });
  const pools = new Map(
    [...options.databases].map(([cell, url]) => [
      cell,
      new pg.Pool({ connectionString: url, max: options.tenants.length }),
    ]),
  );
  const faults: string[] = [];
  let looks = 0;
  let judged = 0;

  const served = async (tenant: string): Promise<Route> => {
    const url = `${options.routerAdmin.replace(/\/+$/, "")}/explain?tenant=${tenant}`;
    const { body } = await request(url, { dispatcher });
    return routeSchema.parse(await body.json());
  };
  const sources = [
    { name: "control plane", read: (tenant: string) => options.client.resolve(tenant) },
    { name: "router", read: served },
  ];

  async function owned(cell: string, tenant: string): Promise<string> {
    const key = tenantKey(defaultKeyspace, must(parseTenantId(tenant), "tenant id"));
    const pool = must(pools.get(cell), `database of ${cell}`);
    const { rows } = await pool.query<{ state: string; epoch: string }>(
      "select state, epoch::text from cellfleet.ownership where key = $1",
      [key],
    );
    return rows[0] === undefined ? "nothing" : `${rows[0].state} at epoch ${rows[0].epoch}`;
  }

  async function look(tenant: string): Promise<void> {
    for (const { name, read } of sources) {
      looks += 1;
      const before = await read(tenant);
      if (before.state !== "active") continue;
      const found = await owned(before.cell, tenant);
      const after = await read(tenant);
      // A revision more may have held and released it in between.
      if (textOf(before) !== textOf(after)) continue;
      judged += 1;
      if (found === `active at epoch ${before.epoch}`) continue;
      faults.push(`${name}: ${tenant} ${textOf(before)}, where ${before.cell} has ${found}`);
    }
  }

  const running = Promise.all(
    options.tenants.map(async (tenant) => {
      while (!over.signal.aborted) {
        await look(tenant);
        await systemClock.sleep(everyMs, over.signal);
      }
    }),
  );
  let stopping: Promise<OwnersSeen> | undefined;
  const stop = async (): Promise<OwnersSeen> => {
    over.abort();
    await running;
    for (const pool of pools.values()) await pool.end();
    await dispatcher.destroy();
    return { looks, judged, faults };
  };
  return {
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

const textOf = ({ cell, epoch, state, revision }: Route): string =>
  `${state} in ${cell} at epoch ${epoch}, revision ${revision}`;
