/**
 * How a listener ends, as a table: it tells its clients to leave, takes nothing new, and cuts what is
 * left. `/readyz` has said no for `--drain-delay-ms` before this begins.
 *
 *   announcing  every answer says `Connection: close`, every session of HTTP/2 gets a GOAWAY; new
 *               connections are still served, for whoever has not noticed yet
 *   stopping    nobody can connect; idle connections are closed every second
 *   cutting     last words to the tunnels, then every socket is closed
 */
import type { Clock } from "../../runtime/clock.ts";

export const drainPhases = ["announcing", "stopping", "cutting", "over"] as const;
export type DrainPhase = (typeof drainPhases)[number];
/** `hurry`: a second signal. `empty`: no connection is left. */
export type DrainEvent = "announced" | "empty" | "late" | "hurry";

export const drainTransitions: Readonly<
  Record<DrainPhase, Readonly<Partial<Record<DrainEvent, DrainPhase>>>>
> = {
  announcing: { announced: "stopping", late: "cutting", hurry: "cutting" },
  stopping: { empty: "over", late: "cutting", hurry: "cutting" },
  cutting: { empty: "over" },
  over: {},
};

export const stepDrain = (phase: DrainPhase, event: DrainEvent): DrainPhase =>
  drainTransitions[phase][event] ?? phase;

export type DrainTimes = {
  /** From the first farewell until nobody can connect any more. */
  readonly announceMs: number;
  /** From the first farewell until what is left is cut. */
  readonly graceMs: number;
};

/** What a listener can do to end. */
export type Endable = {
  readonly announce: () => void;
  /** Takes no more connections; resolves when the last one is gone. */
  readonly stop: () => Promise<void>;
  readonly closeIdle: () => void;
  readonly farewell: () => Promise<void> | void;
  readonly cut: () => void;
};

const sweepMs = 1000;
/** Longest wait for last words. */
const farewellMs = 2000;

export async function drain(
  listener: Endable,
  clock: Clock,
  times: DrainTimes,
  hurry: AbortSignal = new AbortController().signal,
): Promise<void> {
  const late = new AbortController();
  const timer = clock.after(times.graceMs, () => late.abort());
  const end = AbortSignal.any([late.signal, hurry]);
  const eventNow = (otherwise: DrainEvent): DrainEvent =>
    hurry.aborted ? "hurry" : late.signal.aborted ? "late" : otherwise;

  let phase: DrainPhase = "announcing";
  listener.announce();
  await clock.sleep(times.announceMs, end);
  phase = stepDrain(phase, eventNow("announced"));
  const stopped = listener.stop();
  if (phase === "stopping") {
    await sweepUntil(listener, clock, stopped, end);
    phase = stepDrain(phase, eventNow("empty"));
  }
  timer.cancel();
  if (phase !== "cutting") return;
  if (!hurry.aborted) {
    await Promise.race([listener.farewell(), clock.sleep(farewellMs, hurry)]);
  }
  listener.cut();
  await stopped;
}

async function sweepUntil(
  listener: Endable,
  clock: Clock,
  stopped: Promise<void>,
  end: AbortSignal,
): Promise<void> {
  const over = new AbortController();
  const stop = AbortSignal.any([over.signal, end]);
  void stopped.then(() => over.abort());
  while (!stop.aborted) {
    listener.closeIdle();
    await clock.sleep(sweepMs, stop);
  }
}
