/**
 * Who may write, step by step, in the databases of source and target (moving/ports.ts, SwitchPort).
 *
 * Always true: every step may be repeated; the databases themselves refuse what a greater attempt has
 * overtaken; stores are fenced one after the other, so that one which cannot be fenced leaves the rest
 * of them open.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import type { FrozenSnapshots } from "../frozen-snapshots.ts";
import type { MoveTask, StoreLogin, SwitchPort } from "../ports.ts";
import { createConnections } from "./connections.ts";
import { drainStores } from "./drain.ts";
import { fenceStore, unfenceStore } from "./fence.ts";
import { closeGatesOf, openGatesOf } from "./gates.ts";
import { activateStore, tellMovedIn } from "./owner.ts";

export type SwitchOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly snapshots: FrozenSnapshots;
};
/** With its connections; the snapshots are closed by whoever made them. */
export type Switch = SwitchPort & { readonly close: () => Promise<void> };

/** One for the step at hand and one for a snapshot. */
const warmPerStore = 2;

export function createSwitch({ clock, random, snapshots }: SwitchOptions): Switch {
  const connections = createConnections(clock);
  const how = { connections, clock };
  return {
    warm: async ({ stores }) => {
      const logins = stores.flatMap(({ source, target }) => [source, target]);
      await Promise.all(logins.map((login) => connections.warm(login, warmPerStore)));
    },
    closeGates: (task, signal) =>
      atAll(sourcesOf(task), (login) => closeGatesOf(task, login, how, signal)),
    openGates: (task) => atAll(sourcesOf(task), (login) => openGatesOf(task, login, connections)),
    fence: async (task, lockTimeoutMs) => {
      for (const login of sourcesOf(task)) {
        await fenceStore(task, login, { connections, lockTimeoutMs, nonce: random.hex(8) });
      }
    },
    unfence: (task) => atAll(sourcesOf(task), (login) => unfenceStore(task, login, connections)),
    drain: async (task, signal) => {
      await snapshots.keep(task.op, await drainStores(task, how, signal));
    },
    activate: (task) => atAll(targetsOf(task), (login) => activateStore(task, login, connections)),
    tellMoved: (task) => atAll(sourcesOf(task), (login) => tellMovedIn(task, login, connections)),
    discard: ({ stores }) => {
      for (const { source, target } of stores) {
        for (const login of [source, target]) connections.discard(login);
      }
    },
    close: connections.close,
  };
}

const sourcesOf = ({ stores }: MoveTask): StoreLogin[] => stores.map(({ source }) => source);
const targetsOf = ({ stores }: MoveTask): StoreLogin[] => stores.map(({ target }) => target);

/** None is left under way when it fails. */
async function atAll(
  logins: readonly StoreLogin[],
  work: (login: StoreLogin) => Promise<void>,
): Promise<void> {
  for (const done of await Promise.allSettled(logins.map(work))) {
    if (done.status === "rejected") throw done.reason;
  }
}
