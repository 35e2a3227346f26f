/**
 * Asks a cell's partners about a database that was started anew, and waits for their word (rules in
 * core/partner-word.ts). Keeps in memory since when each start is asked about: another process of the
 * control plane asks again.
 *
 * While it waits the call is held, not refused: to a cell that lives by the promises of its partners this
 * control plane is silent until it knows, and the cell goes on.
 */
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import type { IncarnationVerdict } from "../core/incarnation.ts";
import { type PartnerWord, type PresentedPosition, weighWords } from "../core/partner-word.ts";
import type { CellRecord } from "../store/cell-record.ts";
import { askPartners, readWords } from "../store/standby/words.ts";
import type { ApiContext } from "./context.ts";

export type Weighed = {
  readonly verdict: IncarnationVerdict;
  /** By which the same agent's next call is judged as well: what it has written itself since counts for nothing. */
  readonly words: readonly PartnerWord[];
};

export type PartnerDesk = {
  /** Of a database that this control plane knows: undefined, nobody has to be asked. */
  readonly weigh: (
    said: AgentSyncRequest,
    cell: CellRecord,
    signal: AbortSignal,
  ) => Promise<Weighed | undefined>;
  /** By what was told so far; nobody is asked and nothing waited for. */
  readonly weighKnown: (said: AgentSyncRequest, cell: CellRecord) => Promise<Weighed | undefined>;
};

/** Below the patience of an agent that asks for a lease (cell/agent/sync.ts). */
const holdMs = 1500;
const lookEveryMs = 40;

export function createPartnerDesk({ database, clock }: ApiContext): PartnerDesk {
  /** Cell → the start that its partners were asked about. */
  const asked = new Map<string, { readonly boot: string; readonly sinceMonoMs: number }>();

  async function begin(cell: string, boot: string): Promise<number> {
    const known = asked.get(cell);
    if (known?.boot === boot) return known.sinceMonoMs;
    const sinceMonoMs = clock.monotonicMs();
    asked.set(cell, { boot, sinceMonoMs });
    await askPartners(database.read, cell);
    return sinceMonoMs;
  }

  return {
    weigh: async (said, cell, signal) => {
      if (!isNewStart(said, cell)) {
        asked.delete(said.cell);
        return undefined;
      }
      const presented = positionOf(said);
      const sinceMonoMs = await begin(said.cell, said.database.boot);
      const heldUntil = clock.monotonicMs() + holdMs;
      for (;;) {
        const words = await readWords(database.read, said.cell);
        const nowMonoMs = clock.monotonicMs();
        const verdict = weighWords(presented, words, nowMonoMs - sinceMonoMs);
        if (verdict.kind !== "wait" || nowMonoMs >= heldUntil || signal.aborted) {
          return { verdict, words };
        }
        await clock.sleep(lookEveryMs, signal);
      }
    },
    weighKnown: async (said, cell) => {
      if (!isNewStart(said, cell)) return undefined;
      const words = await readWords(database.read, said.cell);
      return { words, verdict: weighWords(positionOf(said), words, Number.POSITIVE_INFINITY) };
    },
  };
}

/** Where no lease was ever granted, a person vouches for the database, or it is a new cell's. */
const isNewStart = (said: AgentSyncRequest, cell: CellRecord): boolean =>
  cell.systemIdentifier !== "" && said.database.boot !== cell.boot;

export function positionOf(said: AgentSyncRequest): PresentedPosition {
  const position = said.origin?.position;
  const [, high = "", low = ""] = /^(\w+)\/(\w+)$/.exec(position?.lsn ?? "") ?? [];
  return {
    ...said.database,
    instance: said.instance,
    grant: position?.grant ?? said.database.grant,
    lsn: position === undefined ? null : (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`),
  };
}
