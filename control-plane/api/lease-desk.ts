/**
 * Who asks for a cell's lease, and may it have one. Keeps in memory what only lasts while calls are
 * open: which agents are calling at this moment, and which cells are under suspicion.
 */
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import { unreachable } from "../../runtime/assert.ts";
import { judgeIncarnation } from "../core/incarnation.ts";
import type { CellRecord } from "../store/cell-record.ts";
import { grantLease, quarantineCell } from "../store/lease.ts";
import type { ApiContext } from "./context.ts";

export type LeaseAnswer = Pick<AgentSyncResponse, "lease" | "leaseRefused">;

export type LeaseDesk = {
  /** A call has begun; call what it returns when the call has ended. */
  readonly open: (said: AgentSyncRequest) => () => void;
  readonly grant: (said: AgentSyncRequest, cell: CellRecord) => Promise<LeaseAnswer>;
  /** Why this database may not speak for the cell; undefined: it may, or claims nothing. */
  readonly object: (said: AgentSyncRequest, cell: CellRecord) => Promise<string | undefined>;
};

export function createLeaseDesk(context: ApiContext): LeaseDesk {
  const calling = new Map<string, number>();
  /** Cell → the agent whose last call was suspicious. */
  const suspects = new Map<string, string>();

  const name = (cell: string, instance: string) => `${cell} ${instance}`;

  async function judge(said: AgentSyncRequest, cell: CellRecord): Promise<string | undefined> {
    const presented = { ...said.database, instance: said.instance };
    const isPreviousCalling = calling.has(name(said.cell, cell.bootInstance));
    const verdict = judgeIncarnation(cell, presented, isPreviousCalling);
    switch (verdict.kind) {
      case "ok":
        suspects.delete(said.cell);
        return undefined;
      case "wait":
        return `INCARNATION_CONTESTED: ${verdict.text}`;
      case "suspect": {
        const text = `${verdict.reason}: ${verdict.text}`;
        if (suspects.get(said.cell) !== said.instance) {
          suspects.set(said.cell, said.instance);
          return text;
        }
        suspects.delete(said.cell);
        const nowMs = context.clock.nowMs();
        await quarantineCell(context.database, said.cell, verdict.reason, verdict.text, nowMs);
        return text;
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
    object: async (said, cell) =>
      said.primary && said.database.reachable && cell.state !== "quarantined"
        ? judge(said, cell)
        : undefined,
    grant: async (said, cell) => {
      const wish = said.wantLease ? refusalBefore(said, cell) : undefined;
      if (wish !== undefined) return { leaseRefused: wish };
      if (!said.primary || cell.state === "quarantined") return {};
      // Also without a wish for a lease: a clone that only listens must not look like the cell.
      const objection = await judge(said, cell);
      if (objection !== undefined) return { leaseRefused: objection };
      if (!said.wantLease) return {};
      const ttlMs = context.settings.leaseTtlMs;
      const grant = await grantLease(context.database.read, said, ttlMs);
      return grant === undefined
        ? { leaseRefused: "the cell or the fleet changed meanwhile; ask again" }
        : { lease: { grant, ttlMs } };
    },
  };
}

function refusalBefore(said: AgentSyncRequest, cell: CellRecord): string | undefined {
  if (!said.primary) return "only the primary agent of a cell asks for its lease";
  if (cell.state === "quarantined" && cell.revoking) {
    return `the cell was failed over: its tenants are served elsewhere, and it stays fenced. cellctl cell salvage ${said.cell} saves what only it has, then cellctl cell wipe ${said.cell} lets it back, empty`;
  }
  if (cell.state === "quarantined") {
    return `the cell is quarantined; cellctl cell get ${said.cell} says why, and POST /v1/cells/${said.cell}/readmit lets it back`;
  }
  if (cell.revoking) return "the cell's ownership is being revoked";
  return said.database.reachable ? undefined : "the cell's database cannot be reached";
}
