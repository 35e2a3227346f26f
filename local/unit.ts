/**
 * One supervised process: running, stopped, or dead, and who may start it again.
 *
 * `dead` means that it ended without being stopped. A unit with `restart` is then started again with
 * growing pauses (the control plane, routers); one without stays dead until somebody says `start`
 * (everything of a cell: a silent restart would hide the failure that the fleet must deal with).
 * Killed by name it stays dead in both cases, so that a drill lasts as long as it should.
 *
 * `start`, `stop` and `kill` run one after the other, and each is idempotent.
 */
import type { Clock, Timer } from "../runtime/clock.ts";

export const unitStates = ["running", "stopped", "dead"] as const;
export type UnitState = (typeof unitStates)[number];

export type UnitStatus = {
  readonly name: string;
  readonly state: UnitState;
  readonly pid: number | null;
  readonly restarts: number;
  /** One sentence about how it got there. */
  readonly text: string;
};

/** A process that runs now. */
export type Launched = {
  readonly pid: number;
  /** Resolves with how it ended: `exit code 1`, `signal SIGKILL`. */
  readonly gone: Promise<string>;
  /** Orderly, within a grace period, then by force. Resolves when it is gone. */
  readonly stop: () => Promise<void>;
  /** A crash. Resolves when it is gone. */
  readonly kill: () => Promise<void>;
};

export type Unit = {
  readonly name: string;
  readonly status: () => UnitStatus;
  /** Nothing is being started or ended: no process is alive that `status` does not know. */
  readonly isSettled: () => boolean;
  readonly start: () => Promise<void>;
  readonly stop: () => Promise<void>;
  readonly kill: () => Promise<void>;
};

export type UnitOptions = {
  readonly name: string;
  readonly restart: boolean;
  readonly clock: Clock;
  /** Resolves when it is ready; rejects, with nothing left running, when it does not become so. */
  readonly launch: () => Promise<Launched>;
  readonly onChange: (status: UnitStatus) => void;
};

const backoffMinMs = 250;
const backoffMaxMs = 10_000;
/** A process that lived this long was healthy: its next death is the first again. */
const provenMs = 30_000;

export function createUnit(options: UnitOptions): Unit {
  const { name, clock } = options;
  let state: UnitState = "stopped";
  let text = "not started yet";
  let process: Launched | undefined;
  /** Being stopped in order: a kill cuts that short. */
  let ending: Launched | undefined;
  let restarts = 0;
  let failures = 0;
  let pending: Timer | undefined;
  let queue: Promise<unknown> = Promise.resolve();
  let underWay = 0;

  const status = (): UnitStatus => ({ name, state, pid: process?.pid ?? null, restarts, text });

  function become(next: UnitState, why: string): void {
    state = next;
    text = why;
    options.onChange(status());
  }

  /** One at a time; a failure is the caller's, and does not stop the next. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    underWay += 1;
    const result = queue.then(work, work).finally(() => {
      underWay -= 1;
    });
    queue = result.catch(() => {}); // The caller has the same rejection.
    return result;
  }

  function onGone(launched: Launched, bornMs: number, how: string): void {
    if (process !== launched || state !== "running") return; // Asked for: the asker says what it is.
    process = undefined;
    become("dead", `ended by itself: ${how}`);
    failures = clock.monotonicMs() - bornMs > provenMs ? 1 : failures + 1;
    if (options.restart) restartLater();
  }

  function restartLater(): void {
    const pauseMs = Math.min(backoffMinMs * 2 ** Math.min(failures - 1, 10), backoffMaxMs);
    pending = clock.after(pauseMs, () => void inTurn(restart), { background: true });
  }

  async function restart(): Promise<void> {
    if (state !== "dead" || pending === undefined) return; // Stopped, killed or started meanwhile.
    pending = undefined;
    restarts += 1;
    try {
      await launch();
    } catch {
      failures += 1;
      restartLater();
    }
  }

  async function launch(): Promise<void> {
    try {
      const launched = await options.launch();
      process = launched;
      const bornMs = clock.monotonicMs();
      become("running", "runs");
      void launched.gone.then((how) => onGone(launched, bornMs, how));
    } catch (error) {
      become("dead", `did not start: ${error instanceof Error ? error.message : String(error)}`);
      throw error;
    }
  }

  async function end(how: "stop" | "kill"): Promise<void> {
    pending?.cancel();
    pending = undefined;
    ending = process;
    process = undefined;
    try {
      await ending?.[how]();
    } finally {
      ending = undefined;
    }
    if (how === "stop") become("stopped", "stopped by request");
    else if (state !== "stopped")
      become("dead", "killed by request; it stays so until it is started");
  }

  return {
    name,
    status,
    isSettled: () => underWay === 0,
    start: () =>
      inTurn(async () => {
        pending?.cancel();
        pending = undefined;
        if (state !== "running") await launch();
      }),
    stop: () => inTurn(() => end("stop")),
    kill: async () => {
      await Promise.all([ending?.kill(), inTurn(() => end("kill"))]);
    },
  };
}
