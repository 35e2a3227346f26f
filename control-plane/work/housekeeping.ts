/**
 * What grows is cut: answers kept for replay, events, names that nobody has any more; and rows of tenants
 * that operators asked for, within minutes, or had salvaged and decided about, within days. The audit log is never cut.
 */
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import { tidyClaims } from "../store/claims.ts";
import type { Database } from "../store/database.ts";
import { purgeEvents } from "../store/events.ts";
import { forgetOldAcks } from "../store/failover/acks.ts";
import { forgetDecided } from "../store/failover/salvage.ts";
import { idempotencyKeptMs, purgeIdempotency } from "../store/idempotency.ts";
import { holdsTerm } from "../store/leader.ts";
import { removeOldQueries } from "../store/queries.ts";
import { retireRouterKeys } from "../store/router-record.ts";
import { tidyCounts } from "../store/slo-counts.ts";
import type { Leadership } from "./lead.ts";

/** Of what is short-lived; the rest is looked at every tenth time. */
const intervalMs = 60_000;
const backoffMaxMs = 600_000;
const turnsBetween = 10;
const eventsKeptMs = 30 * 24 * 3_600_000;

export function startHousekeeping(options: {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly onError: (error: unknown) => void;
}): Loop {
  let turns = 0;
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
        await removeOldQueries(tx);
        if (turns % turnsBetween !== 0) return;
        await tidyClaims(tx);
        await tidyCounts(tx);
        // After an outage of ours every router was silent: first they get the time to call.
        if (turns > 0) await retireRouterKeys(tx);
        await forgetOldAcks(tx);
        await forgetDecided(tx);
        await purgeIdempotency(tx, new Date(nowMs - idempotencyKeptMs));
        await purgeEvents(tx, new Date(nowMs - eventsKeptMs));
      });
      turns += 1;
      return "idle";
    },
  });
}
