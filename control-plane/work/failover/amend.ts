/**
 * Amends reports of what failovers lost: a router that was cut off or slow hands in what it had acknowledged
 * when it is back, and what it names is looked up as everything before it was.
 *
 * What must always be true: only who leads does it, and one that cannot be amended now keeps no other waiting.
 */
import { errorFields } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import { readAmendable } from "../../store/failover/acks.ts";
import type { Leadership } from "../lead.ts";
import { makeRpoReport, type ReportWorld } from "./report.ts";

const intervalMsDefault = 2000;
const backoffMaxMs = 30_000;

export type AmendOptions = {
  readonly world: Omit<ReportWorld, "waitMs">;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly intervalMs?: number;
  readonly onError: (error: unknown) => void;
};

export function startAmending({ world, random, lead, intervalMs, onError }: AmendOptions): Loop {
  const { database, clock, log } = world;
  return startLoop({
    ...{ clock, random, backoffMaxMs, onError, intervalMs: intervalMs ?? intervalMsDefault },
    turn: async () => {
      if (lead.term() === undefined) return "idle";
      for (const failover of await readAmendable(database.read)) {
        // Whoever is late has handed in already: nobody else is waited for.
        await makeRpoReport({ ...world, waitMs: 0 }, failover).catch((error: unknown) =>
          log.event("failover.unamended", { failover, error: "", ...errorFields(error) }, "warn"),
        );
      }
      return "idle";
    },
  });
}
