/**
 * What the primary agent does with an answer of the control plane, in this order: the lease, because
 * it runs; the keyspaces, because keys are resolved by them; the changes; the ids.
 *
 * Every step is conditional in the database itself, so a late or repeated answer, or a second agent
 * that takes itself for the primary, changes nothing that is newer.
 */
import type pg from "pg";
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import { epochSchema } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import type { DatabaseFacts } from "../store/facts.ts";
import { addIdRange } from "../store/id-ranges.ts";
import { setLease } from "../store/lease.ts";
import { applyKeyspaces, applyOwnership } from "../store/ownership.ts";
import type { AgentLog } from "./events.ts";
import type { LeaseKeeper } from "./lease-keeper.ts";

export type Refused = AgentSyncRequest["refused"][number];
export type Obeyed = {
  /** What the database did not take, because it knows something newer; told with the next call. */
  readonly refused: readonly Refused[];
  /** Writers stood in the way of some keys: the same changes will be asked for again. */
  readonly busy: boolean;
};

export type ObedienceOptions = {
  readonly pool: pg.Pool;
  readonly log: AgentLog;
  readonly lease: LeaseKeeper;
  readonly instance: string;
};

export function createObedience(
  options: ObedienceOptions,
): (answer: AgentSyncResponse, facts: DatabaseFacts, sentMonoMs: number) => Promise<Obeyed> {
  const { pool, log } = options;
  let keyspacesApplied = "";
  let leaseRefused = "";

  async function obeyLease(
    answer: AgentSyncResponse,
    facts: DatabaseFacts,
    sentMonoMs: number,
  ): Promise<void> {
    const reason = answer.leaseRefused ?? "";
    if (reason !== leaseRefused && reason !== "") log.event("lease.refused", { reason }, "warn");
    leaseRefused = reason;
    if (answer.lease === undefined) return;
    const { grant, ttlMs } = answer.lease;
    const outcome = await setLease(pool, {
      grant,
      ttlMs,
      clock: facts.clock,
      boot: facts.boot,
      holder: options.instance,
    });
    // For another postmaster, or an older grant: the next call asks anew.
    if (outcome === "other-boot" || outcome === "stale-grant") return;
    options.lease.take({ grant, ttlMs, boot: facts.boot, sentMonoMs });
  }

  async function obeyKeyspaces(answer: AgentSyncResponse): Promise<void> {
    const wanted = JSON.stringify(answer.keyspaces);
    if (answer.keyspaces.length === 0 || wanted === keyspacesApplied) return;
    await applyKeyspaces(pool, answer.keyspaces);
    keyspacesApplied = wanted;
  }

  async function obeyChanges(answer: AgentSyncResponse, facts: DatabaseFacts): Promise<Obeyed> {
    if (answer.changes.length === 0 && answer.revision <= facts.appliedRevision) {
      return { refused: [], busy: false };
    }
    const { outcomes, busy } = await applyOwnership(pool, {
      changes: answer.changes,
      revision: answer.revision,
    });
    if (busy.length > 0) {
      log.event("ownership.delayed", { revision: answer.revision, keys: busy.length }, "warn");
    }
    const refused: Refused[] = [];
    for (const { key, outcome, state, epoch } of outcomes) {
      if (outcome !== "refused") continue;
      log.event("ownership.refused", { key, state, epoch }, "warn");
      refused.push({
        key: placementKeySchema.parse(key),
        state,
        epoch: epochSchema.parse(epoch),
      });
    }
    return { refused, busy: busy.length > 0 };
  }

  return async (answer, facts, sentMonoMs) => {
    await obeyLease(answer, facts, sentMonoMs);
    await obeyKeyspaces(answer);
    const obeyed = await obeyChanges(answer, facts);
    for (const range of answer.idRanges) {
      const outcome = await addIdRange(pool, range);
      // Its ids are never used, which is harmless; the next call asks from the present floor.
      if (outcome === "refused") log.event("ids.refused", range, "warn");
    }
    return obeyed;
  };
}
