/**
 * The moves of one tenant, one after the other: to the next cell and the next, and now and then straight
 * back by the stream that is open (`move reverse`).
 */
import type { Move } from "../../contract/move-api.ts";
import { longestGaps } from "../../history/gaps.ts";
import type { Entry } from "../../history/model.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { MoveClient } from "./move-client.ts";

export type Trip = {
  readonly move: string;
  readonly tenant: string;
  readonly from: string;
  readonly to: string;
  readonly isReverse: boolean;
  /** Switches that were tried. */
  readonly tries: number;
  readonly pause: Move["pause"];
  /** Longest time between two acknowledged writes of the tenant while it moved. */
  readonly gapMs: number;
  /** From the request to the last of its steps, the removal of the source's rows included. */
  readonly tookMs: number;
};

/** Of three moves the third takes the second back. */
const reverseEvery = 3;
const longSoakMs = 600_000;
/** On a machine that is busy with other things a switch may be taken back often. */
const switchTriesMax = 20;

export async function makeTrips(options: {
  readonly client: MoveClient;
  readonly tenant: string;
  readonly cells: readonly string[];
  readonly count: number;
  /** What clients were told so far. */
  readonly history: readonly Entry[];
  readonly onTrip: (trip: Trip) => void;
}): Promise<void> {
  const { client, tenant, cells, count } = options;
  for (let nth = 1; nth <= count; nth += 1) {
    const from = (await client.resolve(tenant)).cell;
    const to = cells[(cells.indexOf(from) + 1) % cells.length] ?? from;
    const isTakenBack = (nth + 1) % reverseEvery === 0 && nth < count;
    const soakMs = isTakenBack ? longSoakMs : 0;
    const there = await timed(options, async () => {
      const { id } = await client.start([tenant], to, { switch: "auto", soakMs, switchTriesMax });
      return client.reaches(id, isTakenBack ? "soaking" : "done");
    });
    options.onTrip(there);
    if (!isTakenBack) continue;
    nth += 1;
    options.onTrip(
      await timed(options, async () => {
        const { id } = await client.act(there.move, "reverse");
        await client.reaches(id, "soaking");
        await client.act(id, "complete");
        return client.reaches(id, "done");
      }),
    );
  }
}

async function timed(
  { tenant, history }: { readonly tenant: string; readonly history: readonly Entry[] },
  work: () => Promise<Move>,
): Promise<Trip> {
  const startedMs = systemClock.monotonicMs();
  const seen = history.length;
  const { id, source, target, tries, pause, reverses } = await work();
  const endedMs = systemClock.monotonicMs();
  // Answers to what was asked before it are looked for among the questions before it.
  const before = history.slice(Math.max(0, seen - lookBack), seen);
  const entries = [...before, ...history.slice(seen)];
  return {
    ...{ move: id, tenant, from: source, to: target, tries, pause },
    isReverse: reverses !== null,
    gapMs: longestGaps(entries, startedMs, endedMs).get(tenant)?.longestMs ?? 0,
    tookMs: endedMs - startedMs,
  };
}

/** More than can be under way. */
const lookBack = 5000;
