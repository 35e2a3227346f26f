/**
 * The leader looks at every cell once a second: what its agent says, and whether its gate answers. The
 * verdicts are `core/health.ts`'s; what changes is written with an event. Health is observed, never
 * obeyed: no cell is restarted or taken from service here.
 */
import { request } from "undici";
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { CellView } from "../core/fleet.ts";
import {
  type HealthTrack,
  judge,
  judgePassThrough,
  type Observation,
  observe,
  type Probe,
  startTrack,
} from "../core/health.ts";
import { type Database, databaseNowMs } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { recordHealth, type Verdict } from "../store/health.ts";
import type { Leadership } from "./lead.ts";

export type JudgeOptions = {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly lead: Pick<Leadership, "term">;
  readonly onError: (error: unknown) => void;
  /** Told when a verdict changed: operations may wait for it. */
  readonly onVerdict: () => void;
  readonly intervalMs?: number;
};

const intervalMsDefault = 1000;
const backoffMaxMs = 5000;
const probeTimeoutMs = 1500;

export function startJudging(options: JudgeOptions): Loop {
  const tracks = new Map<string, HealthTrack>();
  let leading: { readonly term: number; readonly sinceMs: number } | undefined;

  async function turn(): Promise<"idle"> {
    const term = options.lead.term();
    if (term === undefined) {
      leading = undefined;
      tracks.clear();
      return "idle";
    }
    const nowMs = await databaseNowMs(options.database.read);
    if (leading?.term !== term) leading = { term, sinceMs: nowMs };
    const { sinceMs } = leading;
    const cells = (await readCells(options.database.read)).filter(
      ({ state }) => state !== "retired",
    );
    const looks = await Promise.all(
      cells.map(async (cell) => ({ cell, probes: await probeCell(cell) })),
    );
    const changed: Verdict[] = [];
    for (const { cell, probes } of looks) {
      const track = judgeCell(tracks.get(cell.id), cell, observe(cell, probes, nowMs, sinceMs));
      tracks.set(cell.id, track);
      if (track.health !== cell.health || track.reason !== cell.healthReason) {
        changed.push({ cell, track });
      }
    }
    if (changed.length > 0 && (await recordHealth(options.database, term, changed))) {
      options.onVerdict();
    }
    return "idle";
  }

  return startLoop({
    clock: options.clock,
    random: options.random,
    intervalMs: options.intervalMs ?? intervalMsDefault,
    backoffMaxMs,
    turn,
    onError: options.onError,
  });
}

/** Where somebody else has said so meanwhile (a cell was stopped), what was counted before is void. */
function judgeCell(known: HealthTrack | undefined, cell: CellView, seen: Observation): HealthTrack {
  const track = known?.health === cell.health ? known : startTrack(cell);
  return cell.stage.now === "pass-through"
    ? judgePassThrough(track, seen, cell.agents.length > 0)
    : judge(track, seen);
}

const probeCell = (cell: CellView): Promise<Probe[]> =>
  Promise.all(
    cell.agents
      .filter(({ primary }) => primary)
      .map(async ({ instance, endpoint }) => ({ instance, failure: await probe(endpoint) })),
  );

/** Any answer will do: the gate refuses requests that no router sent, and that is an answer. */
async function probe(endpoint: string): Promise<string | undefined> {
  try {
    const { body } = await request(new URL("/livez", endpoint), {
      method: "GET",
      headersTimeout: probeTimeoutMs,
      bodyTimeout: probeTimeoutMs,
      signal: AbortSignal.timeout(probeTimeoutMs),
    });
    await body.dump();
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "no answer";
  if (error.name === "TimeoutError") return `no answer within ${probeTimeoutMs} ms`;
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}
