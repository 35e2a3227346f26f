/**
 * Who asks for a cell's lease, and may it have one. Keeps in memory what only lasts while calls are
 * open: which agents are calling at this moment, and which cells are under suspicion.
 */
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import { unreachable } from "../../runtime/assert.ts";
import { type IncarnationVerdict, judgeIncarnation } from "../core/incarnation.ts";
import { grantedMs } from "../core/lease-mode.ts";
import { type PartnerWord, weighWords } from "../core/partner-word.ts";
import type { CellRecord } from "../store/cell-record.ts";
import { grantLease, quarantineCell } from "../store/lease.ts";
import type { ApiContext } from "./context.ts";
import { createPartnerDesk, positionOf, type Weighed } from "./partner-desk.ts";

export type LeaseAnswer = Pick<AgentSyncResponse, "lease" | "leaseRefused">;

export type LeaseDesk = {
  /** A call has begun; call what it returns when the call has ended. */
  readonly open: (said: AgentSyncRequest) => () => void;
  /** Waits a moment where partners have to be asked, until the signal says that nobody waits for the answer. */
  readonly grant: (
    said: AgentSyncRequest,
    cell: CellRecord,
    signal: AbortSignal,
  ) => Promise<LeaseAnswer>;
  /** Why this database may not speak for the cell; undefined: it may, or claims nothing. */
  readonly object: (said: AgentSyncRequest, cell: CellRecord) => Promise<string | undefined>;
};

type Suspect = {
  /** The agent whose last call was suspicious. */
  readonly instance: string;
  /** What partners had told by then, where that is why. */
  readonly words: readonly PartnerWord[];
};

type Judged = {
  readonly kind: "ok" | "wait" | "suspect";
  readonly text: string;
};

export function createLeaseDesk(context: ApiContext): LeaseDesk {
  const calling = new Map<string, number>();
  const suspects = new Map<string, Suspect>();
  const partners = createPartnerDesk(context);

  const name = (cell: string, instance: string) => `${cell} ${instance}`;

  async function judge(
    said: AgentSyncRequest,
    cell: CellRecord,
    weigh: () => Promise<Weighed | undefined>,
  ): Promise<Judged> {
    const presented = { ...said.database, instance: said.instance };
    const isPreviousCalling = calling.has(name(said.cell, cell.bootInstance));
    const own = judgeIncarnation(cell, presented, isPreviousCalling);
    const weighed = own.kind === "ok" ? await weigh() : undefined;
    return act(said, weighed?.verdict ?? own, weighed?.words ?? []);
  }

  async function act(
    said: AgentSyncRequest,
    verdict: IncarnationVerdict,
    words: readonly PartnerWord[],
  ): Promise<Judged> {
    switch (verdict.kind) {
      case "ok":
        suspects.delete(said.cell);
        return { kind: "ok", text: "" };
      case "wait":
        return { kind: "wait", text: `INCARNATION_CONTESTED: ${verdict.text}` };
      case "suspect": {
        const text = `${verdict.reason}: ${verdict.text}`;
        const before = suspects.get(said.cell);
        if (before?.instance !== said.instance || !isOlderThan(said, before.words)) {
          suspects.set(said.cell, { instance: said.instance, words });
          return { kind: "suspect", text };
        }
        suspects.delete(said.cell);
        const nowMs = context.clock.nowMs();
        await quarantineCell(context.database, said.cell, verdict.reason, verdict.text, nowMs);
        return { kind: "suspect", text };
      }
      default:
        return unreachable(verdict);
    }
  }

  return {
    open: (said) => {
      const key = name(said.cell, said.instance);
      calling.set(key, (calling.get(key) ?? 0) + 1);
      return () => {
        const left = (calling.get(key) ?? 1) - 1;
        if (left > 0) calling.set(key, left);
        else calling.delete(key);
      };
    },
    object: async (said, cell) => {
      if (!said.primary || !said.database.reachable || cell.state === "quarantined")
        return undefined;
      const { kind, text } = await judge(said, cell, () => partners.weighKnown(said, cell));
      return kind === "ok" ? undefined : text;
    },
    grant: async (said, cell, signal) => {
      const wish = said.wantLease ? refusalBefore(said, cell) : undefined;
      if (wish !== undefined) return { leaseRefused: wish };
      if (!said.primary || cell.state === "quarantined") return {};
      // Also without a wish for a lease: a clone that only listens must not look like the cell.
      const judged = await judge(said, cell, () => partners.weigh(said, cell, signal));
      if (judged.kind !== "ok") return withoutLease(said, judged);
      if (!said.wantLease) return {};
      const ttlMs = grantedMs(cell.leaseMode, context.settings.leaseTtlMs);
      const grant = await grantLease(context.database.read, said, ttlMs);
      return grant === undefined
        ? { leaseRefused: "the cell or the fleet changed meanwhile; ask again" }
        : { lease: { grant, ttlMs } };
    },
  };
}

/** A call may be delayed behind what the cell has written since; by what was told before it, it is not. */
const isOlderThan = (said: AgentSyncRequest, words: readonly PartnerWord[]): boolean =>
  words.length === 0 ||
  weighWords(positionOf(said), words, Number.POSITIVE_INFINITY).kind === "suspect";

/** A cell that lives by promises goes on by them until something is known: to wait is no refusal. */
const withoutLease = (said: AgentSyncRequest, { kind, text }: Judged): LeaseAnswer =>
  kind === "wait" && livesByPromises(said) ? {} : { leaseRefused: text };

/** The highest grant that it knows is its own. */
const livesByPromises = ({ origin, database }: AgentSyncRequest): boolean =>
  database.grant > (origin?.controlGrant ?? database.grant);

function refusalBefore(said: AgentSyncRequest, cell: CellRecord): string | undefined {
  if (!said.primary) return "only the primary agent of a cell asks for its lease";
  if (cell.state === "quarantined" && cell.revoking) {
    return `the cell was failed over: its tenants are served elsewhere, and it stays fenced. cellctl cell salvage ${said.cell} saves what only it has, then cellctl cell wipe ${said.cell} lets it back, empty`;
  }
  if (cell.state === "quarantined") {
    return `the cell is quarantined; cellctl cell get ${said.cell} says why, and cellctl cell readmit ${said.cell} lets it back`;
  }
  if (cell.revoking) return "the cell's ownership is being revoked";
  return said.database.reachable ? undefined : "the cell's database cannot be reached";
}
