/**
 * What the primary agent does in one store with an answer of the control plane, in this order: the lease, because
 * it runs; the keyspaces, because keys are resolved by them; the changes; the ids; the stage.
 *
 * Every step is conditional in the database itself, so a late or repeated answer, or a second agent
 * that takes itself for the primary, changes nothing that is newer.
 */
import type pg from "pg";
import type {
  AgentSyncRequest,
  AgentSyncResponse,
  OwnershipChange,
} from "../../contract/cell-protocol.ts";
import { epochSchema } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import { type DatabaseFacts, setStage } from "../store/facts.ts";
import { addIdRange } from "../store/id-ranges.ts";
import { setLease } from "../store/lease.ts";
import { applyKeyspaces, applyOwnership, type ChangeOutcome } from "../store/ownership.ts";
import { sqlStateOf } from "../store/queryable.ts";
import type { AgentLog } from "./events.ts";
import type { LeaseKeeper } from "./lease-keeper.ts";
import type { Purger } from "./purger.ts";

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
  readonly purger: Purger;
  /** Looked at again before the stage is set: an answer may have lain for long. */
  readonly isPrimary: () => boolean;
  /** The database's stage is another one now: the gate is to follow it. */
  readonly onStageSet: () => Promise<void>;
};

/** `facts`: of this store, from before the call. `sentMonoMs`: from before they were read. */
export type Obey = (
  answer: AgentSyncResponse,
  facts: DatabaseFacts,
  sentMonoMs: number,
) => Promise<Obeyed>;

const lockNotAvailable = "55P03";

export function createObedience(options: ObedienceOptions): Obey {
  const { pool, log, purger } = options;
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
    // A purge is asked for until it is reported; what is applied need not be written again.
    const known = answer.changes.filter((change) => isPurge(change) && purger.knows(change));
    for (const change of known) purger.hear(change);
    const changes = answer.changes.filter((change) => !known.includes(change));
    if (changes.length === 0 && answer.revision <= facts.appliedRevision) {
      return { refused: [], busy: false };
    }
    const { outcomes, busy } = await applyOwnership(pool, { changes, revision: answer.revision });
    if (busy.length > 0) {
      log.event("ownership.delayed", { revision: answer.revision, keys: busy.length }, "warn");
    }
    const refused = outcomes.filter(({ outcome }) => outcome === "refused");
    const standing = new Set<string>(
      outcomes.flatMap(({ key, outcome }) => (outcome === "refused" ? [] : [key])),
    );
    // Only what is dropped or fenced here, and stays so, is removed.
    for (const change of changes.filter((one) => isPurge(one) && standing.has(one.key))) {
      purger.hear(change);
    }
    return { refused: refused.map(noteRefused), busy: busy.length > 0 };
  }

  function noteRefused({ key, state, epoch }: ChangeOutcome): Refused {
    log.event("ownership.refused", { key, state, epoch }, "warn");
    return { key: placementKeySchema.parse(key), state, epoch: epochSchema.parse(epoch) };
  }

  /**
   * False: asked for again, because a transaction that began under the old stage stands in the way, or
   * because the answer is not of now: the database knows a later change, or another agent leads.
   */
  async function obeyStage(answer: AgentSyncResponse, facts: DatabaseFacts): Promise<boolean> {
    const { stage, stageNumber: number = 0 } = answer;
    if (stage === undefined) return true;
    if (stage === facts.stage && number === facts.stageNumber) return true;
    if (!options.isPrimary()) return false;
    try {
      if ((await setStage(pool, { stage, number })) === "stale") {
        log.event("stage.refused", { stage, number }, "warn");
        return false;
      }
    } catch (error) {
      if (sqlStateOf(error) !== lockNotAvailable) throw error;
      log.event("stage.delayed", { stage }, "warn");
      return false;
    }
    await options.onStageSet();
    return true;
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
    const staged = await obeyStage(answer, facts);
    return { ...obeyed, busy: obeyed.busy || !staged };
  };
}

const isPurge = (change: OwnershipChange): boolean =>
  change.purge === true && (change.state === "dropped" || change.state === "fenced");
