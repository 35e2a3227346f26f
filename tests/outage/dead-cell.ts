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
import { openFleetClient, routerOrigins } from "./fleet-client.ts";
import { acknowledged, isServed, type Named, namedLost, reported, settle } from "./settled.ts";
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
const failedOverWithinMs = 90_000;
const readBackMs = 60_000;
/** A fleet in service, not one whose processes still compile their code. */
const rampMs = 10_000;
const calmMs = 15_000;

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
    streams: [{ tenants, perSecond: options.writesPerSecond, rampMs }],
  });
  try {
    await until("every tenant is written to", () => isServed(load, tenants), failedOverWithinMs);
    await systemClock.sleep(calmMs);
    const killedMs = systemClock.monotonicMs();
    await client.kill(victim);
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
