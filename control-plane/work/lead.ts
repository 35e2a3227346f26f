/**
 * Who acts. Several control planes may run; the one in the leader's seat drives operations and judges
 * health. A seat is kept by renewing it well before it ends, and counted on this process's monotonic
 * clock from before the question was sent: whoever stalls stops by itself before another may begin,
 * and what it sends all the same is refused by its old term.
 */
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { Database } from "../store/database.ts";
import { recordEvents } from "../store/events.ts";
import { holdsTerm, keepSeat, leaveSeat, takeSeat } from "../store/leader.ts";
import { extendDeadlines } from "../store/ops.ts";

/**
 * How long a seat lasts without renewal: a takeover after a kill takes this and one look. Cells need no
 * leader for their leases, so it may be shorter or longer than those.
 */
export const seatTtlMs = 3000;
const renewMs = 1000;
/** An operation that waited while nobody led gets at least this long. */
const deadlineGraceMs = 30_000;

export type Leadership = {
  /** The term this process leads in; undefined while it does not. */
  readonly term: () => number | undefined;
  /** Wall clock of the moment this process began to lead; 0 while it does not. */
  readonly sinceMs: () => number;
  readonly close: () => Promise<void>;
};

export type LeadershipOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly instance: string;
  readonly onChange: (term: number | undefined) => void;
  readonly onError: (error: unknown) => void;
};

export function startLeading(options: LeadershipOptions): Leadership {
  const { database, clock, instance } = options;
  let seat: { readonly term: number; readonly sinceMs: number } | undefined;
  let untilMs = 0;

  function lose(): void {
    if (seat === undefined) return;
    seat = undefined;
    options.onChange(undefined);
  }

  const term = (): number | undefined => {
    if (seat !== undefined && clock.monotonicMs() >= untilMs) lose();
    return seat?.term;
  };

  async function keep(): Promise<void> {
    const held = term();
    const askedMs = clock.monotonicMs();
    if (held !== undefined) {
      if (await keepSeat(database, instance, held, seatTtlMs)) untilMs = askedMs + seatTtlMs;
      else lose();
      return;
    }
    const won = await takeSeat(database, instance, seatTtlMs);
    if (won === undefined) return;
    await begin(database, instance, won, clock.nowMs());
    untilMs = askedMs + seatTtlMs;
    seat = { term: won, sinceMs: clock.nowMs() };
    options.onChange(won);
  }

  const loop: Loop = startLoop({
    clock,
    random: options.random,
    intervalMs: renewMs,
    backoffMaxMs: renewMs,
    turn: async () => {
      await keep();
      return "idle";
    },
    onError: options.onError,
  });

  return {
    term,
    sinceMs: () => (term() === undefined ? 0 : (seat?.sinceMs ?? 0)),
    close: async () => {
      await loop.close();
      const held = term();
      lose();
      if (held !== undefined) await leaveSeat(database, instance, held);
    },
  };
}

async function begin(
  database: Database,
  instance: string,
  term: number,
  nowMs: number,
): Promise<void> {
  await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return;
    await extendDeadlines(tx, nowMs + deadlineGraceMs);
    const text = `${instance} leads in term ${term}`;
    await recordEvents(tx, [{ kind: "leader.changed", object: instance, text }]);
  });
}
