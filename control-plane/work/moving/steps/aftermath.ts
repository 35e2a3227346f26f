/**
 * After the commit there is only the way forward: the target takes over, the way back is opened, rows are
 * compared once more, and in the end what the move made is removed. Each is tried for as long as it takes.
 */
import { newOpId } from "../../../../runtime/random.ts";
import { endMoved } from "../../../store/moves/end.ts";
import { findUnserved } from "../../../store/moves/motion.ts";
import { forgetObjects } from "../../../store/moves/objects.ts";
import { openReverseOf } from "../../../store/moves/read.ts";
import { standbysBehind } from "../../../store/moves/standbys.ts";
import { releaseToTarget } from "../../../store/moves/switch.ts";
import { startWayBack } from "../../../store/moves/way-back.ts";
import type { Step } from "../world.ts";
import { differing, repairs } from "./opening.ts";

/** A router that takes longer is named, and not waited for: the source's fence refuses it. */
const releaseAckMs = 60_000;
const pauseAckMs = 250;
const soakLookMs = 1000;
const suspendedLookMs = 5000;

export const activating: Step = async ({ world, view, task, memory, signal }) => {
  memory.pause?.end("commit");
  await world.mover.activate(task);
  await world.mover.hooks.call(task, "activate", signal);
  memory.pause?.end("activate");
  return {
    event: "activated",
    headline: `${view.target} is active; routers are told`,
    within: async (tx) => ({ releaseRevision: await releaseToTarget(tx, view) }),
  };
};

export const routing: Step = async ({ world, view, task, memory, signal }) => {
  // The pause is over for requests of every router that answers; one that does not is waited for besides.
  let behind = await world.routers.behind(view.releaseRevision ?? 0, pauseAckMs, signal);
  // Tried again, this step tells what it measured the first time.
  if (memory.pause?.finish() === true) world.metrics.pause(memory.pause.parts().total / 1000);
  if (behind.length > 0) {
    behind = await world.routers.behind(view.releaseRevision ?? 0, releaseAckMs, signal);
  }
  await world.mover.tellMoved(task);
  await world.mover.openGates(task);
  const pause = memory.pause?.parts();
  const late =
    behind.length === 0
      ? []
      : [
          {
            kind: "move.router-late",
            object: view.id,
            text: `${behind.join(", ")} did not say within ${releaseAckMs / 1000} s that it serves revision ${view.releaseRevision}; ${view.source} refuses what it still sends there.`,
          },
        ];
  return {
    event: "routed",
    headline: `${view.target} serves; opening the way back`,
    ...(pause === undefined ? {} : { patch: { pause } }),
    events: late,
  };
};

export const reversing: Step = async (context) => {
  const { world, view, task, signal } = context;
  await world.mover.hooks.call(task, "verify", signal);
  await world.mover.turnAround(task);
  const found = await world.mover.compareAfter(task, signal);
  const verifications = [...view.verifications, found];
  if (found.equal) {
    const { soakMs } = view.options;
    return {
      event: "reversed",
      headline: `soaking: ${view.source} follows ${view.target}; the move can be taken back`,
      patch: { verifications, soakMs },
    };
  }
  const isRepair = await repairs(context);
  const text = `Rows differ between ${view.source} as it was frozen and ${view.target}: ${differing(found.tables)}. Nothing is removed.`;
  return {
    event: "mismatched",
    headline: isRepair ? text : `${text} The move is being taken back.`,
    patch: { verifications },
    // What stands in the source is right, with what the way back brings.
    within: async (tx) => {
      if (!isRepair) {
        const nowMs = world.clock.nowMs();
        await startWayBack(tx, view, { id: newOpId(world.random, nowMs), nowMs, reason: text });
      }
      return {};
    },
    events: [{ kind: "move.diverged", object: view.id, text: `${view.id}: ${text}` }],
  };
};

/** Somebody said `complete`, or its time is over: that alone ends nothing while somebody is suspended. */
export const soaking: Step = async ({ world, view, wait, note }) => {
  const reader = world.database.read;
  if ((await openReverseOf(reader, view.id)) !== undefined) {
    await wait(soakLookMs);
    return undefined;
  }
  const keys = view.keys.map(({ key }) => key);
  const unserved = view.wish === "complete" ? undefined : await findUnserved(reader, keys);
  if (unserved !== undefined) {
    await note(
      `${view.step}: rests while ${unserved.key} is ${unserved.state}; the way back stays`,
    );
    await wait(suspendedLookMs);
    return undefined;
  }
  // Until then the source's rows are the standby of these keys (corrections A13).
  const behind = await standbysBehind(reader, { op: view.id, cell: view.target, step: "routing" });
  if (behind.length > 0) {
    await note(`${view.step}: ${view.source} keeps its rows until ${behind.join(", ")} has them`);
    await wait(soakLookMs);
    return undefined;
  }
  return {
    event: "soaked",
    headline: `removing what the move made, and the rows in ${view.source}`,
    patch: { wish: "none" },
  };
};

export const cleaning: Step = async ({ world, view, task, signal }) => {
  await world.mover.hooks.call(task, "purge", signal);
  await world.mover.clean(task, signal);
  return {
    event: "cleaned",
    headline: `done: ${view.target} serves, nothing is left in ${view.source}`,
    within: async (tx) => {
      await endMoved(tx, view.id);
      await forgetObjects(tx, view.id);
      return {};
    },
    events: [
      {
        kind: "move.done",
        object: view.id,
        text: `${view.id} of ${view.object} from ${view.source} to ${view.target} is done.`,
      },
    ],
  };
};
