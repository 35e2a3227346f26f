/**
 * The room of moves, assembled: the executor with its sweeper, and the look that the API takes before it
 * plans. Everything that logs in to a cell's database in this process is behind this door.
 */
import { cellIdSchema, epochOne, keyspaceNameSchema, opIdSchema } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import type { CellMover } from "../../../moving/ports.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { createLog, type LogOptions } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import { newOpId, type Random } from "../../../runtime/random.ts";
import type { LookAtMove } from "../../api/context.ts";
import type { MoveLimits } from "../../core/move/admit.ts";
import { type Patience, patienceDefault } from "../../core/move/failure.ts";
import type { Database } from "../../store/database.ts";
import { readEpochs } from "../../store/moves/task-facts.ts";
import type { WakeHub } from "../../store/wake-hub.ts";
import type { Leadership } from "../lead.ts";
import { createCellMover } from "./cell-mover.ts";
import { createMoveMetrics } from "./metrics.ts";
import { startMover } from "./mover.ts";
import { watchRouters } from "./routers.ts";
import { createSoakWatch } from "./soak-watch.ts";
import { createSweeper } from "./sweep.ts";
import { buildTask, type ResolveSecret, readAllLogins } from "./task.ts";
import type { MoveBoundary, MovingEvents, MovingWorld } from "./world.ts";

export type MovingOptions = {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly logTo: LogOptions;
  readonly lead: Pick<Leadership, "term">;
  readonly resolve: ResolveSecret;
  readonly allowHookCommands: boolean;
  readonly limits?: MoveLimits;
  readonly patience?: Patience;
  /** What is left of moves that are over is looked for this often. Default: once a minute. */
  readonly sweepEveryMs?: number;
  /** Ways back are looked at this often. Default: every 10 s. */
  readonly soakLookEveryMs?: number;
  readonly onBoundary: MoveBoundary | undefined;
  readonly onError: (error: unknown) => void;
};

export type Moving = {
  /** A router has acknowledged a revision, to this process. */
  readonly acknowledged: (router: string, revision: number) => void;
  readonly look: LookAtMove;
  readonly underWay: () => number;
  readonly wake: () => void;
  readonly close: () => Promise<void>;
};

export function startMoving(options: MovingOptions): Moving {
  const { database, hub, clock, random, resolve } = options;
  const mover = createCellMover({ clock, random, allowCommands: options.allowHookCommands });
  let listeningSinceMs = 0;
  const world: MovingWorld = {
    ...{ database, hub, clock, random, mover },
    log: createLog<MovingEvents>(options.logTo),
    metrics: createMoveMetrics(options.metrics),
    routers: watchRouters({
      ...{ database, hub, clock },
      listeningSinceMs: () => listeningSinceMs,
    }),
    taskOf: (view) => buildTask(database.read, resolve, view),
    allLogins: () => readAllLogins(database.read, resolve),
    patience: options.patience ?? patienceDefault,
    onBoundary: options.onBoundary,
  };
  const sweeper = createSweeper(world, options.sweepEveryMs);
  const soakWatch = createSoakWatch(world, options.soakLookEveryMs);
  const executor = startMover({
    ...{ world, sweeper, soakWatch, lead: options.lead, onError: options.onError },
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    onTerm: (sinceMs) => {
      listeningSinceMs = sinceMs;
    },
  });
  return {
    acknowledged: world.routers.heard,
    look: lookWith(mover, options),
    underWay: executor.underWay,
    wake: executor.wake,
    close: async () => {
      await executor.close();
      await soakWatch.close();
      await sweeper.close();
      await mover.close();
    },
  };
}

/** For a plan: as the executor looks, with an operation that is none. */
const lookWith =
  (mover: CellMover, { database, resolve, random, clock }: MovingOptions): LookAtMove =>
  async ({ keyspace, keys: wanted, source, target }) => {
    const keys = wanted.map((key) => placementKeySchema.parse(key));
    const epochs = await readEpochs(database.read, keys);
    const task = await buildTask(database.read, resolve, {
      id: opIdSchema.parse(newOpId(random, clock.nowMs())),
      attempt: 0,
      keyspace: keyspaceNameSchema.parse(keyspace),
      keys: keys.map((key) => ({ key, epoch: epochs.get(key) ?? epochOne })),
      source: cellIdSchema.parse(source),
      target: cellIdSchema.parse(target),
      reverses: null,
    });
    const { tables, checks, estimate } = await mover.look(task);
    const stores = task.stores.map(({ name }) => name);
    return { stores, tables: [...tables], checks: [...checks], estimate };
  };
