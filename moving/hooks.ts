/**
 * What a move asks of stores that PostgreSQL does not hold: Redis, object storage, a search index.
 *
 * Always true: a hook is told by the same key each time it is told of the same step of the same attempt, so it
 * can be repeated; it is over after its `timeoutMs`, tries included, or when the signal aborts; and what it
 * answers is shown only in part, and only as text that may stand on a terminal. Both sides are asked where their hooks
 * differ, source first; a hook that both name is asked once.
 */
import { CellError } from "../contract/errors.ts";
import type { MoveCheck } from "../contract/move-api.ts";
import type { StoreHook } from "../contract/routing-table.ts";
import type { Clock } from "../runtime/clock.ts";
import { runHookCommand } from "./hooks-command.ts";
import { postHook } from "./hooks-http.ts";
import type { ExternalSide, HookPhase, HookPort, MoveTask } from "./ports.ts";

/** Who is asked what, by either way. */
export type HookCall = {
  readonly body: string;
  readonly idempotencyKey: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
};
/** Undefined: done. `again`: the same may succeed when it is asked once more. */
export type HookFailure = { readonly text: string; readonly again: boolean };

type ExternalStore = MoveTask["external"][number];

const triesMax = 3;
const pauseMs = 100;

export function createHooks(options: {
  readonly clock: Clock;
  /** Commands are run on this machine, with this process's rights: only where its operator says so. */
  readonly allowCommands: boolean;
}): HookPort {
  return {
    call: async (task, phase, signal) => {
      for (const store of task.external) {
        for (const hook of hooksOf(store)) {
          await callHook(hook, { task, phase, store: store.name, signal, ...options });
        }
      }
    },
    checks: (task) =>
      task.external.flatMap((store) => [
        checkSide(store.name, task.source, store.source, options.allowCommands),
        checkSide(store.name, task.target, store.target, options.allowCommands),
      ]),
  };
}

function hooksOf({ source, target }: ExternalStore): StoreHook[] {
  const [left, right] = [hookOf(source), hookOf(target)];
  if (left === undefined || right === undefined)
    return [left ?? right].filter((hook) => hook !== undefined);
  return placeOf(left) === placeOf(right) ? [left] : [left, right];
}

const hookOf = (side: ExternalSide | null): StoreHook | undefined =>
  side === null || side.ignore ? undefined : side.hook;

const placeOf = (hook: StoreHook): string =>
  "url" in hook ? `url ${hook.url}` : `command ${hook.command}`;

type Asked = {
  readonly task: MoveTask;
  readonly phase: HookPhase;
  readonly store: string;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly allowCommands: boolean;
};

async function callHook(hook: StoreHook, asked: Asked): Promise<void> {
  const { clock, signal, task, phase, store } = asked;
  const until = clock.monotonicMs() + hook.timeoutMs;
  const idempotencyKey = keyOf(asked);
  const body = JSON.stringify({
    op: task.op,
    attempt: task.attempt,
    phase,
    keyspace: task.keyspace.name,
    keys: task.keys.map(({ key, epoch }) => ({ key, epoch })),
    source: task.source,
    target: task.target,
    store,
    idempotencyKey,
  });
  for (let tried = 1; ; tried += 1) {
    signal.throwIfAborted();
    const timeoutMs = Math.max(1, Math.ceil(until - clock.monotonicMs()));
    const failure = await ask(hook, { body, idempotencyKey, timeoutMs, signal }, asked);
    if (failure === undefined) return;
    signal.throwIfAborted();
    const left = until - clock.monotonicMs();
    if (!failure.again || tried >= triesMax || left <= pauseMs * tried) {
      throw hookFailed(asked, failure, tried);
    }
    await clock.sleep(pauseMs * tried, signal);
  }
}

/**
 * The attempt is part of it, for a switch that was taken back is tried again under a greater one, and then
 * `fence` is to be done once more; and the store, for one hook may serve several.
 */
const keyOf = ({ task, phase, store }: Pick<Asked, "task" | "phase" | "store">): string =>
  `${task.op}:${phase}:${Math.max(...task.keys.map(({ epoch }) => epoch))}:${task.attempt}:${store}`;

async function ask(
  hook: StoreHook,
  call: HookCall,
  { clock, allowCommands }: Asked,
): Promise<HookFailure | undefined> {
  if ("url" in hook) return postHook(hook.url, call);
  return allowCommands
    ? runHookCommand(hook.command, call, clock)
    : { text: "commands are not allowed in this control plane", again: false };
}

const hookFailed = (asked: Asked, { text }: HookFailure, tried: number): CellError => {
  const { store, phase, task } = asked;
  return new CellError(
    "MOVE_HOOK_FAILED",
    `The hook of store ${store} did not do ${phase} for ${task.op} (${tried === 1 ? "asked once" : `asked ${tried} times`}): ${text}`,
    {
      details: { store, phase, idempotencyKey: keyOf(asked) },
      nextSteps: [`look at what serves the hook of store ${store}`, `cellctl move show ${task.op}`],
    },
  );
};

function checkSide(
  store: string,
  cell: string,
  side: ExternalSide | null,
  allowCommands: boolean,
): MoveCheck {
  const said = (verdict: MoveCheck["verdict"], text: string, fix: string): MoveCheck => ({
    ...{ id: "external", cell, store, verdict, text, fix },
  });
  if (side === null) {
    return said(
      "refused",
      `${store} is a store of the other cell, not of this one: its data would have nowhere to go`,
      `cellctl cell set ${cell} --hook ${store}=URL, or --ignore-store ${store}`,
    );
  }
  if (side.ignore) return said("ok", "its data stays behind, as its cell says", "");
  if (side.hook === undefined) {
    return said(
      "refused",
      `nobody knows how the data of ${store} moves: it is no PostgreSQL, and has neither hook nor ignore`,
      `cellctl cell set ${cell} --hook ${store}=URL, or --ignore-store ${store}`,
    );
  }
  if ("command" in side.hook && !allowCommands) {
    return said(
      "refused",
      "its hook is a command, which this control plane does not run",
      "start the control plane with --allow-hook-commands, or give it a hook with a url: cellctl cell set CELL --hook NAME=URL",
    );
  }
  return said("ok", `moves by its hook, within ${side.hook.timeoutMs} ms a step`, "");
}
