/**
 * Tenants travel from cell to cell and back, several at a time, while they and others are written to all
 * the time. What clients were told, what is there in the end, what each cell's database committed and whom
 * routes named is judged; what clients waited is measured.
 */

import { checkHistory } from "../../history/check.ts";
import { installCommitLog, readCommitLog } from "../../history/commit-log.ts";
import type { Entry, Verdict } from "../../history/model.ts";
import { createReader } from "../../history/read-load.ts";
import { createRecorder, type Recorder } from "../../history/recorder.ts";
import { readTenant } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { testApplication } from "../application.ts";
import { type TestFleet, until } from "../fleet.ts";
import { inDatabase, superuserUrls } from "./cell-databases.ts";
import { openMoveClient } from "./move-client.ts";
import { type OpenLoad, type Sample, startOpenLoad } from "./open-load.ts";
import { type OwnersSeen, watchOwners } from "./owner-watch.ts";
import { type Quantiles, quantilesOf } from "./quantiles.ts";
import { makeTrips, type Trip } from "./trips.ts";

export type TravelOptions = {
  /** In all. */
  readonly moves: number;
  /** Tenants that travel at the same time. */
  readonly atOnce: number;
  /** To each of them. */
  readonly writesPerSecond: number;
  readonly others: number;
  /** To all others together. */
  readonly othersPerSecond: number;
  /** Nothing but the load and the moves: no looks at routes, no lists read, no log of commits. */
  readonly isMeasured?: boolean;
  readonly onTrip?: (trip: Trip) => void;
};

export type TravelReport = {
  readonly trips: readonly Trip[];
  /** Of tenants that move, and of others. */
  readonly writes: number;
  /** Not acknowledged at the first try, with what clients were told. */
  readonly refused: readonly string[];
  readonly verdict: Verdict;
  readonly routes: OwnersSeen;
  /** Answers to other tenants, in milliseconds: while nothing moved, and while something did. */
  readonly others: { readonly before: Quantiles; readonly during: Quantiles };
};

const run = "travel";
const quietMs = 2000;
const listEveryMs = 200;
const readBackMs = 60_000;

export async function travel(fleet: TestFleet, options: TravelOptions): Promise<TravelReport> {
  const { router, routerAdmin } = await fleet.endpoints();
  const travellers = named("traveller", options.atOnce);
  const others = named("other", options.others);
  const tenants = [...travellers, ...others];
  const client = await openMoveClient(fleet);
  const databases = await superuserUrls(fleet);
  const cells = [...databases.keys()];
  const judged = options.isMeasured === true ? [] : [...databases];
  for (const [, url] of judged) await inDatabase(url, logCommits);
  await Promise.all(
    tenants.map((tenant, index) => client.createTenant(tenant, cells[index % cells.length] ?? "")),
  );
  await until("every tenant is served", async () => {
    const answers = await Promise.all(tenants.map((tenant) => fleet.ask(tenant, "GET", "/orders")));
    return answers.every(({ status }) => status === 200);
  });
  const history: Entry[] = [];
  const recorder = createRecorder({
    ...{ clock: systemClock, run },
    write: (entry) => history.push(entry),
  });
  const { writesPerSecond, othersPerSecond } = options;
  const load = startOpenLoad({
    ...{ recorder, run, router: new URL(router).origin },
    streams: [
      ...travellers.map((tenant) => ({ tenants: [tenant], perSecond: writesPerSecond })),
      { tenants: others, perSecond: othersPerSecond },
    ],
  });
  const watched = options.isMeasured === true ? [] : travellers;
  const readers = startReaders(load, recorder, watched);
  const watch = await watchOwners({ client, routerAdmin, databases, tenants: watched });
  try {
    await until("every tenant is written to", () => hasAll(load, tenants));
    await until("processes are warm", () => isCalm(load, tenants.length));
    const quietFromMs = systemClock.monotonicMs();
    await systemClock.sleep(quietMs);
    const fromMs = systemClock.monotonicMs();
    const trips: Trip[] = [];
    const onTrip = (trip: Trip) => {
      trips.push(trip);
      options.onTrip?.(trip);
    };
    await Promise.all(
      travellers.map((tenant, lane) => {
        const count = Math.ceil((options.moves - lane) / options.atOnce);
        return makeTrips({ client, tenant, cells, count, history, onTrip });
      }),
    );
    const toMs = systemClock.monotonicMs();
    await readers.stop();
    await load.stop();
    const deadlineMs = systemClock.monotonicMs() + readBackMs;
    for (const tenant of tenants) {
      await readTenant({ run, recorder, clock: systemClock }, load.asking, tenant, deadlineMs);
    }
    for (const [cell, url] of judged) {
      history.push(...(await inDatabase(url, (database) => readCommitLog(database, cell))));
    }
    const ofOthers = load.samples.filter(({ tenant }) => others.includes(tenant));
    return {
      ...{ trips, writes: load.samples.length, verdict: checkHistory(history) },
      refused: load.samples.filter(({ outcome }) => outcome !== "ok").map(toldOf),
      routes: await watch.stop(),
      others: {
        before: tookIn(ofOthers, quietFromMs, fromMs),
        during: tookIn(ofOthers, fromMs, toMs),
      },
    };
  } finally {
    await readers.stop();
    await watch.stop();
    await load.close();
    await client.close();
  }
}

const named = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_one, index) => `${name}-${index + 1}`);

const logCommits = (client: Parameters<typeof installCommitLog>[0]): Promise<void> =>
  installCommitLog(client, {
    ...{ schema: "public", keyspace: "default", table: testApplication.table },
    keyColumn: testApplication.keyColumn,
    valueColumn: testApplication.valueColumn,
  });

function hasAll({ samples }: OpenLoad, tenants: readonly string[]): boolean {
  const served = new Set(
    samples.filter(({ outcome }) => outcome === "ok").map((one) => one.tenant),
  );
  return tenants.every((tenant) => served.has(tenant));
}

const calmOrders = 200;
const calmMs = 100;

/** What was started a moment ago answers slowly for a while. */
function isCalm({ samples, underWay }: OpenLoad, tenants: number): boolean {
  const last = samples.slice(-Math.max(calmOrders, tenants));
  const slow = last.filter(({ tookMs }) => tookMs > calmMs);
  return (
    last.length >= Math.min(calmOrders, 3 * tenants) &&
    slow.length < last.length / 10 &&
    underWay() < 50
  );
}

/** Lists of those who travel, read all the while: no read may miss what an earlier one has seen. */
function startReaders(
  { asking }: OpenLoad,
  recorder: Recorder,
  tenants: readonly string[],
): { readonly stop: () => Promise<void> } {
  const over = new AbortController();
  const running = Promise.all(
    tenants.map(async (tenant) => {
      const process = `${tenant}#reader`;
      const turn = createReader({ asking, recorder, run, tenant, process });
      for (let n = 0; !over.signal.aborted; n += 1) {
        await turn(n);
        await systemClock.sleep(listEveryMs, over.signal);
      }
    }),
  );
  return {
    stop: async () => {
      over.abort();
      await running;
    },
  };
}

const toldOf = ({ tenant, outcome, reason, tookMs }: Sample): string =>
  `${tenant}: ${outcome} after ${Math.round(tookMs)} ms, ${reason}`;

const tookIn = (samples: readonly Sample[], fromMs: number, toMs: number): Quantiles =>
  quantilesOf(
    samples.filter(({ sentMs }) => sentMs >= fromMs && sentMs < toMs).map(({ tookMs }) => tookMs),
  );
