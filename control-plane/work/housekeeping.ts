/** What grows is cut: answers kept for replay, and events. The audit log is never cut. */
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { Database } from "../store/database.ts";
import { purgeEvents } from "../store/events.ts";
import { idempotencyKeptMs, purgeIdempotency } from "../store/idempotency.ts";
import { holdsTerm } from "../store/leader.ts";
import type { Leadership } from "./lead.ts";

const intervalMs = 600_000;
const backoffMaxMs = 600_000;
const eventsKeptMs = 30 * 24 * 3_600_000;

export function startHousekeeping(options: {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly onError: (error: unknown) => void;
}): Loop {
  return startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs,
    backoffMaxMs,
    onError: options.onError,
    turn: async () => {
      const term = options.lead.term();
      if (term === undefined) return "idle";
      const nowMs = options.clock.nowMs();
      await options.database.transaction(async (tx) => {
        if (!(await holdsTerm(tx, term))) return;
        await purgeIdempotency(tx, new Date(nowMs - idempotencyKeptMs));
        await purgeEvents(tx, new Date(nowMs - eventsKeptMs));
      });
      return "idle";
    },
  });
}
