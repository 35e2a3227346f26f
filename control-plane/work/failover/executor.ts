/**
 * The executor of failovers, in the process that leads: follows each that is open by a drive of its own.
 * It stands still while the fleet recovers from a restore.
 *
 * Always true: a drive belongs to one term. When the term is over its signal is aborted before another
 * term's drive of the same failover begins here; what it sent all the same is void by its attempt.
 */
import type { OpId } from "../../../contract/ids.ts";
import { errorFields } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import { databaseNowMs } from "../../store/database.ts";
import { openRuns } from "../../store/failover/evidence.ts";
import { fleet } from "../../store/schema.ts";
import type { Leadership } from "../lead.ts";
import { driveFailover } from "./drive.ts";
import type { FailoverWorld } from "./world.ts";

const intervalMs = 500;
const backoffMaxMs = 5000;

export type ExecutorOptions = {
  readonly world: FailoverWorld;
  readonly lead: Pick<Leadership, "term">;
  /** Told when this process begins to lead, by the database's clock. */
  readonly onTerm: (sinceMs: number) => void;
  readonly onError: (error: unknown) => void;
};

export type Executor = {
  /** Failovers that are followed here now. */
  readonly underWay: () => number;
  readonly wake: () => void;
  readonly close: () => Promise<void>;
};

type Driving = { readonly stop: AbortController; readonly done: Promise<void> };

export function startExecutor(options: ExecutorOptions): Executor {
  const { world, lead } = options;
  const { database, clock, random } = world;
  const drives = new Map<OpId, Driving>();
  let term: number | undefined;

  async function stopAll(): Promise<void> {
    for (const { stop } of drives.values()) stop.abort();
    await Promise.all([...drives.values()].map(({ done }) => done));
  }

  function follow(id: OpId, inTerm: number): void {
    const stop = new AbortController();
    const done = driveFailover(world, id, inTerm, stop.signal)
      .catch((error) => {
        const fields = { failover: id, step: "", error: "", ...errorFields(error) };
        world.log.event("failover.failing", fields, "error");
        options.onError(error);
      })
      .finally(() => {
        drives.delete(id);
      });
    drives.set(id, { stop, done });
  }

  async function enterTerm(now: number | undefined): Promise<void> {
    if (now === term) return;
    term = now;
    await stopAll();
    if (now !== undefined) options.onTerm(await databaseNowMs(database.read));
  }

  async function turn(): Promise<"idle"> {
    await enterTerm(lead.term());
    if (term === undefined) return "idle";
    await world.clockWatch.look();
    const [head] = await database.read.select({ mode: fleet.mode }).from(fleet);
    if (head?.mode !== "normal") {
      await stopAll();
      return "idle";
    }
    for (const { id } of await openRuns(database.read)) {
      if (!drives.has(id)) follow(id, term);
    }
    return "idle";
  }

  const loop: Loop = startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs, turn },
    onError: options.onError,
  });

  return {
    underWay: () => drives.size,
    wake: () => {
      // A drive of a term that is over stops at once, not at the loop's next turn.
      if (lead.term() !== term) for (const { stop } of drives.values()) stop.abort();
      loop.wake();
    },
    close: async () => {
      await loop.close();
      await stopAll();
    },
  };
}
