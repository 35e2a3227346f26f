/**
 * What the leader remembers of cells' comings and goings. It is forgotten with its seat: a successor
 * waits a little longer, and nothing that must be true hangs on it.
 */
import type { CellView } from "../../core/fleet.ts";

export type SettlingLimits = {
  /** Nobody has come or gone for so long: cells that start together are spread together. */
  readonly settleMs: number;
  /** A cell that is being made is waited for so long. */
  readonly comingMs: number;
  /** A host that has been down for so long is lost: what it kept is built elsewhere. */
  readonly lostMs: number;
  /** A takeover, whose tenants wait for the processors, is waited for so long. */
  readonly takeoverMs: number;
};

export const settlingDefault: SettlingLimits = {
  settleMs: 2000,
  comingMs: 60_000,
  lostMs: 300_000,
  takeoverMs: 60_000,
};

export type Settling = {
  /** `takingOver`: keys are changing hands right now. */
  readonly see: (cells: readonly CellView[], nowMs: number, takingOver?: boolean) => SeenCells;
  readonly forget: () => void;
};
export type SeenCells = { readonly settled: boolean; readonly lost: ReadonlySet<string> };

export function createSettling(limits: SettlingLimits): Settling {
  let known = "";
  let knownSinceMs = 0;
  let takeoverSinceMs: number | undefined;
  const comingSinceMs = new Map<string, number>();
  const downSinceMs = new Map<string, number>();

  return {
    see: (cells, nowMs, takingOver = false) => {
      takeoverSinceMs = takingOver ? (takeoverSinceMs ?? nowMs) : undefined;
      const whole = cells.filter(({ annex, state }) => annex === null && state !== "retired");
      const open = whole.filter(({ state, health }) => state === "active" && health === "healthy");
      const now = open
        .map(({ id }) => id)
        .sort()
        .join(" ");
      if (now !== known) knownSinceMs = nowMs;
      known = now;
      const coming = whole.filter(
        ({ state, goal, health }) =>
          goal === "active" && (state === "provisioning" || health === "unknown"),
      );
      keepTimes(comingSinceMs, coming, nowMs);
      keepTimes(
        downSinceMs,
        whole.filter(({ health }) => health === "down"),
        nowMs,
      );
      const awaited = coming.some(
        ({ id }) => nowMs - (comingSinceMs.get(id) ?? nowMs) < limits.comingMs,
      );
      const isDisturbing =
        takeoverSinceMs !== undefined && nowMs - takeoverSinceMs < limits.takeoverMs;
      return {
        settled: !awaited && !isDisturbing && nowMs - knownSinceMs >= limits.settleMs,
        lost: new Set(
          [...downSinceMs].filter(([, since]) => nowMs - since >= limits.lostMs).map(([id]) => id),
        ),
      };
    },
    forget: () => {
      known = "";
      takeoverSinceMs = undefined;
      comingSinceMs.clear();
      downSinceMs.clear();
    },
  };
}

/** Since when each is so; who is not any more is forgotten. */
function keepTimes(times: Map<string, number>, cells: readonly CellView[], nowMs: number): void {
  const ids = new Set(cells.map(({ id }) => id));
  for (const id of [...times.keys()]) if (!ids.has(id)) times.delete(id);
  for (const id of ids) if (!times.has(id)) times.set(id, nowMs);
}
