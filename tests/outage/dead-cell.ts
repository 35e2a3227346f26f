/**
 * One cell of a fleet is killed under load, application and database at once. What customers waited is
 * measured, what they were told is kept, and the history checker says what is gone: nothing may be but what
 * the report of the failover names.
 */

import type { Failover } from "../../contract/failover-api.ts";
import { checkHistory } from "../../history/check.ts";
import type { Entry, Verdict } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { readTenant } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { type OpenLoad, startOpenLoad } from "../moves/open-load.ts";
import { type Quantiles, quantilesOf } from "../moves/quantiles.ts";
import { type FleetClient, openFleetClient, routerOrigins } from "./fleet-client.ts";
import { type Outage, outageOf } from "./takeover-time.ts";

export type DeadCellOptions = {
  readonly tenants: number;
  /** To all of them together. */
  readonly writesPerSecond: number;
  readonly victim: string;
  /** Load goes on for so long after the victim's tenants are served again. */
  readonly afterMs: number;
  readonly say: (line: string) => void;
};

export type DeadCellReport = {
  readonly failover: Failover;
  /** Of the victim's tenants. */
  readonly outages: readonly Outage[];
  readonly outage: Quantiles;
  readonly neverBack: readonly string[];
  /** What tenants of other cells were refused, while the victim died and after. */
  readonly othersRefused: readonly string[];
  readonly writes: number;
  readonly verdict: Verdict;
  /** Acknowledged writes that are gone; all of them are in the report, or the verdict is red. */
  readonly lost: number;
  /** Named by the report, and there. */
  readonly falseAlarms: number;
};

const run = "outage";
const readyWithinMs = 180_000;
const failedOverWithinMs = 90_000;
const readBackMs = 60_000;
const calmMs = 3000;

export async function deadCell(
  fleet: TestFleet,
  options: DeadCellOptions,
): Promise<DeadCellReport> {
  const { victim, say } = options;
  const client = await openFleetClient(fleet);
  const { homes, tenants } = await settle(fleet, client, options);
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const load = startOpenLoad({
    ...{ recorder, run, router: await routerOrigins(fleet) },
    streams: [{ tenants, perSecond: options.writesPerSecond }],
  });
  try {
    await until("every tenant is written to", () => isServed(load, tenants), readyWithinMs);
    await systemClock.sleep(calmMs);
    const killedMs = systemClock.monotonicMs();
    await fleet.cliJson("cell", "kill", victim, "--yes");
    say(`${victim} killed`);
    const mine = tenants.filter((tenant) => homes.get(tenant) === victim);
    const failover = await reported(client, victim);
    say(`${failover.id} ${failover.step}: ${failover.headline}`);
    const backMs = systemClock.monotonicMs();
    await until("its tenants are served", () => isServed(load, mine, backMs), failedOverWithinMs);
    await systemClock.sleep(options.afterMs);
    await load.stop();
    const deadlineMs = systemClock.monotonicMs() + readBackMs;
    for (const tenant of tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, deadlineMs);
    }
    const named = namedLost(failover);
    for (const { tenant, value } of named) recorder.note({ kind: "reported-lost", tenant, value });
    return judge({ load, history, failover, named, mine, killedMs });
  } finally {
    await load.close();
    await client.close();
  }
}

/** Tenants in every cell, and every cell's standbys ready. */
async function settle(
  fleet: TestFleet,
  client: FleetClient,
  { tenants: count, say }: DeadCellOptions,
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
    "standbys are ready",
    async () => {
      const standbys = await client.standbys();
      return cells.every((cell) => {
        const mine = standbys.filter(({ origin }) => origin === cell);
        const partners = Math.min(3, cells.length - 1);
        return mine.length >= partners && mine.every(({ state }) => state === "ready");
      });
    },
    readyWithinMs,
  );
  say(`${count} tenants in ${cells.length} cells, standbys ready`);
  return { homes, tenants: [...homes.keys()] };
}

function isServed(load: OpenLoad, tenants: readonly string[], sinceMs = 0): boolean {
  const served = new Set(
    load.samples
      .filter(({ outcome, sentMs }) => outcome === "ok" && sentMs >= sinceMs)
      .map(({ tenant }) => tenant),
  );
  return tenants.every((tenant) => served.has(tenant));
}

/** The failover of the cell, once its report is there. */
async function reported(client: FleetClient, cell: string): Promise<Failover> {
  let found: Failover | undefined;
  await until(
    `a failover of ${cell} with its report`,
    async () => {
      found = (await client.failovers()).find((one) => one.cell === cell);
      if (found !== undefined) found = await client.failover(found.id);
      return found !== undefined && found.report !== null;
    },
    failedOverWithinMs,
  );
  if (found === undefined) throw new Error(`no failover of ${cell}`);
  return found;
}

type Named = { readonly tenant: string; readonly value: string };

/** By the Idempotency-Key, which is the value that the load writes. */
const namedLost = ({ report }: Failover): Named[] =>
  (report?.tenants ?? []).flatMap(({ tenant, lost, unknown }) =>
    [...lost, ...unknown].flatMap(({ idempotencyKey }) =>
      idempotencyKey === undefined ? [] : [{ tenant, value: idempotencyKey }],
    ),
  );

function judge(seen: {
  readonly load: OpenLoad;
  readonly history: readonly Entry[];
  readonly failover: Failover;
  readonly named: readonly Named[];
  readonly mine: readonly string[];
  readonly killedMs: number;
}): DeadCellReport {
  const { load, history, failover, named, mine, killedMs } = seen;
  const { samples } = load;
  const outages = mine.flatMap((tenant) => outageOf(tenant, samples, killedMs) ?? []);
  const present = new Set(history.flatMap((one) => (one.kind === "present" ? [one.value] : [])));
  const acked = acknowledged(history);
  return {
    ...{ failover, outages, writes: samples.length, verdict: checkHistory(history) },
    outage: quantilesOf(outages.flatMap(({ lastedMs }) => lastedMs ?? [])),
    neverBack: outages.filter(({ lastedMs }) => lastedMs === null).map(({ tenant }) => tenant),
    othersRefused: samples
      .filter(({ tenant, outcome }) => outcome !== "ok" && !mine.includes(tenant))
      .map(
        ({ tenant, sentMs, reason }) => `${tenant} +${Math.round(sentMs - killedMs)} ms ${reason}`,
      ),
    lost: acked.filter((value) => !present.has(value)).length,
    falseAlarms: named.filter(({ value }) => present.has(value)).length,
  };
}

function acknowledged(history: readonly Entry[]): string[] {
  const asked = new Map<string, string>();
  return history.flatMap((entry) => {
    if (entry.kind === "invoke") asked.set(entry.process, entry.value);
    return entry.kind === "ok" ? [asked.get(entry.process) ?? ""] : [];
  });
}
