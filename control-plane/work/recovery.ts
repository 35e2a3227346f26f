/**
 * Drives recovery after a restore: reads how it stands, decides (core/recovery.ts), takes one step.
 * Needs no leader: every step is one transaction that looks again under the fleet's lock.
 */
import { unreachable } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import { newOpId, type Random } from "../../runtime/random.ts";
import { planRecovery, type RecoveryAction } from "../core/recovery.ts";
import type { Database } from "../store/database.ts";
import { enterRecovery, recoveryActor } from "../store/recovery-evidence.ts";
import {
  fenceLosers,
  finishRecovery,
  freezeCells,
  noteRecovery,
  readRecovery,
  recordIncarnation,
} from "../store/recovery-steps.ts";

export type RecoveryOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  /** Of grants made from now on; the longest that was recorded counts too. */
  readonly leaseTtlMs: number;
  readonly onError: (error: unknown) => void;
  /** Told of every step that was taken, in one sentence. */
  readonly onStep?: (action: RecoveryAction) => void;
};

const intervalMs = 1000;
const backoffMaxMs = 5000;
/** Clocks of two machines differ in rate by far less. */
const driftShare = 1.01;

/** Before anything is served: is this still the database that was served last? */
export async function checkIncarnation(options: RecoveryOptions): Promise<void> {
  const { database, clock } = options;
  const { before, now } = await recordIncarnation(database);
  if (before === "" || before === now) return;
  await enterRecovery(
    database,
    {
      who: "this database",
      text: `The control plane's database is ${now}, and was ${before}: it was restored or moved`,
      presented: { revision: 0, epoch: 0, grant: 0 },
    },
    clock.nowMs(),
  );
}

export function startRecovery(options: RecoveryOptions): Loop {
  return startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs,
    backoffMaxMs,
    onError: options.onError,
    turn: () => recoveryTurn(options),
  });
}

/** One step, if there is one to take. */
export async function recoveryTurn(options: RecoveryOptions): Promise<"again" | "idle"> {
  const { database, clock, random } = options;
  const { leaseTtlMsMax, ...read } = await readRecovery(database.read);
  const freezeAfterMs = Math.max(leaseTtlMsMax, options.leaseTtlMs) * driftShare;
  const action = planRecovery({ ...read, freezeAfterMs });
  if (action.kind !== "none") options.onStep?.(action);
  const opId = newOpId(random, clock.nowMs());
  switch (action.kind) {
    case "none":
      return "idle";
    case "wait":
      await noteRecovery(database, action.text);
      return "idle";
    case "freeze":
      await freezeCells(
        database,
        action.cells,
        { actor: recoveryActor, reason: action.text },
        clock.nowMs(),
      );
      return "again";
    case "fence":
      await fenceLosers(database, opId, clock.nowMs());
      return "again";
    case "merge":
      await finishRecovery(database, opId, clock.nowMs());
      return "again";
    default:
      return unreachable(action);
  }
}
