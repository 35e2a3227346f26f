/** What the outage tests have in common: a fleet of tenants with standbys, and what is read of the end. */
import type { Failover } from "../../contract/failover-api.ts";
import type { Entry } from "../../history/model.ts";
import { type TestFleet, until } from "../fleet.ts";
import type { OpenLoad } from "../moves/open-load.ts";
import type { FleetClient } from "./fleet-client.ts";

const readyWithinMs = 180_000;
const failedOverWithinMs = 90_000;
/** As often as people would look: each look is work for the control plane whose haste is measured. */
const lookEveryMs = 1000;

/** Tenants in every cell, and every cell's standbys ready. */
export async function settle(
  fleet: TestFleet,
  client: FleetClient,
  { tenants: count, say }: { readonly tenants: number; readonly say: (line: string) => void },
) {
  const cells = Object.keys((await fleet.endpoints()).cells);
  const homes = new Map(
    Array.from({ length: count }, (_one, index): [string, string] => [
      `tenant-${index + 1}`,
      cells[index % cells.length] ?? "",
    ]),
  );
  const wanted = [...homes].map(([id, cell]) => ({ id, cell }));
  await client.importTenants(wanted);
  await until(
    "standbys are ready, and the application runs at them",
    async () => {
      const standbys = await client.standbys();
      return cells.every((cell) => {
        const mine = standbys.filter(({ origin }) => origin === cell);
        // A whole server has one partner, and no database for the application before it is promoted.
        const isWhole = mine.some(({ provider }) => provider === "physical");
        const partners = isWhole ? 1 : Math.min(3, cells.length - 1);
        const isReady = mine.every(({ state, warm }) => state === "ready" && (warm || isWhole));
        return mine.length >= partners && isReady;
      });
    },
    readyWithinMs,
    lookEveryMs,
  );
  say(`${count} tenants in ${cells.length} cells, standbys ready`);
  return { homes, tenants: [...homes.keys()] };
}

export function isServed(load: OpenLoad, tenants: readonly string[], sinceMs = 0): boolean {
  const served = new Set(
    load.samples
      .filter(({ outcome, sentMs }) => outcome === "ok" && sentMs >= sinceMs)
      .map(({ tenant }) => tenant),
  );
  return tenants.every((tenant) => served.has(tenant));
}

/** The failover of the cell, once its report is there. */
export async function reported(
  client: FleetClient,
  cell: string,
  withinMs = failedOverWithinMs,
): Promise<Failover> {
  let found: Failover | undefined;
  await until(
    `a failover of ${cell} with its report`,
    async () => {
      found = (await client.failovers()).find((one) => one.cell === cell);
      if (found !== undefined) found = await client.failover(found.id);
      return found !== undefined && found.report !== null;
    },
    withinMs,
    lookEveryMs,
  );
  if (found === undefined) throw new Error(`no failover of ${cell}`);
  return found;
}

export type Named = { readonly tenant: string; readonly value: string };

/** By the Idempotency-Key, which is the value that the load writes. */
export const namedLost = ({ report }: Failover): Named[] =>
  (report?.tenants ?? []).flatMap(({ tenant, lost, unknown }) =>
    [...lost, ...unknown].flatMap(({ idempotencyKey }) =>
      idempotencyKey === undefined ? [] : [{ tenant, value: idempotencyKey }],
    ),
  );

export function acknowledged(history: readonly Entry[]): string[] {
  const asked = new Map<string, string>();
  return history.flatMap((entry) => {
    if (entry.kind === "invoke") asked.set(entry.process, entry.value);
    return entry.kind === "ok" ? [asked.get(entry.process) ?? ""] : [];
  });
}
