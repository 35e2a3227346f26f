/**
 * One call from a cell's agent: heartbeat, what it has applied and seen; and back: its lease,
 * changes of ownership in order of revision, id ranges, questions of operators.
 *
 * Read `serveSync` as a list. What must always be true: evidence that this database was restored is
 * weighed before anything is written on the cell's word (corrections A5); a database that may not be
 * the cell's own gets no lease (A14); what is granted is committed before it is answered (A6).
 */
import {
  type AgentSyncRequest,
  type AgentSyncResponse,
  agentSyncRequestSchema,
  agentSyncResponseSchema,
} from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import { parseRevision } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { evidenceOfRestore } from "../core/recovery.ts";
import {
  announceGates,
  type CellRecord,
  readCellRecord,
  readKeyspaces,
  readStageGoal,
  recordAgent,
  recordProgress,
  recordStage,
  type StageGoal,
} from "../store/cell-record.ts";
import { recordUnclassed } from "../store/coverage-record.ts";
import { leaseIdRanges, surpassHeldIds } from "../store/id-ranges.ts";
import { leaseModeWord, recordLeaseMode } from "../store/lease-mode.ts";
import { activateApplied, type OwnershipPage, readChanges } from "../store/ownership-feed.ts";
import { saveClaims } from "../store/recovery-claims.ts";
import { enterRecovery } from "../store/recovery-evidence.ts";
import { noteLeased } from "../store/recovery-heirs.ts";
import { settleRefusals } from "../store/refusals.ts";
import { recordOutcomes } from "../store/slo-counts.ts";
import { readOpenPurges, recordPurged } from "../store/tenant-end.ts";
import { recordStats } from "../store/tenant-stats.ts";
import { requireSubject } from "./auth.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { createGoldDesk, type GoldDesk } from "./gold-desk.ts";
import { createLeaseDesk, type LeaseDesk } from "./lease-desk.ts";
import { requireFleet, requirePlausible, requireReady } from "./machine-router.ts";
import { recordStandbySaid, standbyWord } from "./machine-standby.ts";
import { createQuestions, type Questions, type QuestionTurn } from "./queries.ts";
import type { RoutingFeed } from "./routing-feed.ts";

/** Shorter than any time after which a silent cell is suspect. */
const agentWaitMsMax = 5000;
/** Ten thousand keys or tenants with the longest ids. */
const syncBodyBytesMax = 8 * 1024 * 1024;

/** Of one answer, as the contract says. */
const changesMax = 20_000;

type Desk = {
  readonly context: ApiContext;
  readonly feed: RoutingFeed;
  readonly leases: LeaseDesk;
  readonly questions: Questions;
  readonly gold: GoldDesk;
};

export function machineAgentEndpoints(context: ApiContext, feed: RoutingFeed): Endpoint[] {
  const desk: Desk = {
    ...{ context, feed },
    leases: createLeaseDesk(context),
    questions: createQuestions(context),
    gold: createGoldDesk(context),
  };
  return [
    endpoint({
      method: "post",
      path: "/v1/machine/agent/sync",
      role: "agent",
      tag: "machine",
      summary: "Heartbeat of a cell's agent; brings lease, changes of ownership and id ranges",
      body: agentSyncRequestSchema,
      bodyBytesMax: syncBodyBytesMax,
      answers: { 200: agentSyncResponseSchema },
      serve: async ({ caller, body, request }) => {
        requireSubject(caller, body.cell);
        const done = desk.leases.open(body);
        try {
          return { status: 200, body: await serveSync(desk, body, request.signal) };
        } finally {
          done();
        }
      },
    }),
  ];
}

async function serveSync(
  desk: Desk,
  said: AgentSyncRequest,
  signal: AbortSignal,
): Promise<AgentSyncResponse> {
  const { database } = desk.context;
  await requireReady(desk.feed);
  requirePlausible(said.appliedRevision, said.epochMax, said.database.grant);
  let cell = await requireCell(desk, said);
  if (await noticeRestore(desk, said, cell)) cell = await requireCell(desk, said);
  if (await recordAgent(database.read, said)) await announceGates(database);
  await recordStandbySaid(database.read, said);
  if (cell.mode === "recovering") return answerRecovering(desk, said, cell, signal);
  await recordProgress(database.read, said);
  // Before all that nobody waits for: requests of these keys do.
  const refused = said.refused.map(({ key }) => key);
  await activateApplied(database, said.cell, said.appliedRevision, refused);
  await recordStage(database.read, said);
  await recordUnclassed(database, said, cell.unclassed);
  const purged = said.purged ?? [];
  await recordPurged(database.read, said.cell, purged);
  const lease = await desk.leases.grant(said, cell, signal);
  // Of a database that may not be the cell's own nothing of this is believed.
  if (cell.state !== "quarantined" && lease.leaseRefused === undefined) {
    await recordLeaseMode(database.read, said, cell.leaseMode);
  }
  await recordStats(database, said.cell, said.stats);
  await recordOutcomes(database.read, said);
  const idRanges = await leaseIdRanges(
    database,
    said.cell,
    said.wantIdRanges,
    said.idRangesHeld ?? [],
  );
  // A purge is reported until it is answered: it is answered now.
  const urgent = said.wantLease || idRanges.length > 0 || purged.length > 0;
  const page = await waitForChanges(desk, said, {
    waitMs: urgent ? 0 : said.waitMs,
    signal,
    adopted: cell.stageGoal !== null,
    recovering: false,
  });
  const [keyspaces, gold] = await Promise.all([
    readKeyspaces(database.read),
    desk.gold.wordFor(said),
  ]);
  return { fleet: cell.fleet, ...page, keyspaces, ...lease, ...gold, idRanges, report: "nothing" };
}

async function requireCell(desk: Desk, said: AgentSyncRequest): Promise<CellRecord> {
  const cell = await readCellRecord(desk.context.database.read, said.cell);
  if (cell === undefined || cell.state === "retired") {
    throw new CellError("CELL_UNKNOWN", `There is no cell ${said.cell} in this fleet.`, {
      nextSteps: ["Register the cell again, and give its agent the new token: cellctl cell create"],
    });
  }
  requireFleet(said.fleet, cell.fleet);
  return cell;
}

/** True: recovery has begun, or goes on with this evidence. */
async function noticeRestore(
  desk: Desk,
  said: AgentSyncRequest,
  cell: CellRecord,
): Promise<boolean> {
  const { database, clock } = desk.context;
  const forgotten = cell.mode === "normal" ? await settleRefusals(database, said) : undefined;
  const presented = {
    revision: said.appliedRevision,
    epoch: Math.max(said.epochMax, forgotten?.epoch ?? 0),
    // Those above it the cell gave itself while we were silent.
    grant: said.origin?.controlGrant ?? said.database.grant,
  };
  const who = `cell ${said.cell}`;
  const judge = (known: CellRecord) =>
    returnOfFrozen(said, known) ??
    laterStage(said, known) ??
    evidenceOfRestore(who, presented, {
      // With what was presented before: it is evidence once.
      revision: known.revisionMax,
      epoch: Math.max(desk.feed.epochMax(), known.epochMaxSeen),
      grant: Math.max(known.grant, known.grantSeen),
    });
  let text =
    forgotten && `${who} refused ${forgotten.key}: it knows epoch ${forgotten.epoch} of it`;
  if (text === undefined) {
    if (judge(cell) === undefined) return false;
    await desk.feed.refresh();
    text = judge(await requireCell(desk, said));
  }
  if (text === undefined) return false;
  const returned = cell.recoveryCell === "lost" ? said.cell : undefined;
  await enterRecovery(database, { who, text, presented, returned }, clock.nowMs());
  return true;
}

/** What it owns was left open when the fleet recovered without it. */
const returnOfFrozen = (said: AgentSyncRequest, cell: CellRecord): string | undefined =>
  cell.mode === "normal" &&
  (cell.recoveryCell === "frozen" || cell.recoveryCell === "lost") &&
  said.primary &&
  said.database.reachable
    ? `cell ${said.cell}, which an earlier recovery went on without, is back`
    : undefined;

/** Changes of stage are counted here: a database that has made a later one got it from another history. */
function laterStage(said: AgentSyncRequest, cell: CellRecord): string | undefined {
  const number = said.stage?.number ?? 0;
  const isKnown = cell.mode !== "normal" || cell.stageGoal === null || number <= cell.stageNumber;
  if (isKnown || !said.primary || !said.database.reachable) return undefined;
  return `cell ${said.cell} has seen change ${number} of its stage (ours is ${cell.stageNumber}): this control plane was restored from an older state`;
}

/** Nothing is granted; the cell reports what it owns, then applies what it lost (corrections A5). */
async function answerRecovering(
  desk: Desk,
  said: AgentSyncRequest,
  cell: CellRecord,
  signal: AbortSignal,
): Promise<AgentSyncResponse> {
  const { database } = desk.context;
  // A database that was set back itself must not speak for its keys.
  const objection = await desk.leases.object(said, cell);
  if (objection === undefined && cell.state !== "quarantined") {
    await recordLeaseMode(database.read, said, cell.leaseMode);
    await noteLeased(database.read, said, cell);
  }
  await recordProgress(database.read, said);
  // Before its report is complete: what its database has made of its stage is part of it.
  await recordStage(database.read, said);
  await surpassHeldIds(database, said.idRangesHeld ?? []);
  const common = {
    fleet: cell.fleet,
    keyspaces: [],
    idRanges: [],
    leaseRefused: objection ?? `RECOVERING: ${cell.modeReason}`,
  };
  const stay = { revision: said.appliedRevision, changes: [], more: false };
  if (objection !== undefined) {
    await desk.feed.changed(Math.min(said.waitMs, agentWaitMsMax), signal);
    return { ...common, ...stay, report: "nothing" };
  }
  if (cell.recoveryStep === "collecting") {
    const isComplete =
      said.primary && said.ownership !== undefined
        ? await saveClaims(database, said.cell, said.ownership, said.epochMax)
        : cell.recoveryCell !== "awaited";
    if (!isComplete) return { ...common, ...stay, report: "ownership" };
    await desk.feed.changed(Math.min(said.waitMs, agentWaitMsMax), signal);
    return { ...common, ...stay, report: "nothing" };
  }
  const page = await waitForChanges(desk, said, {
    ...{ waitMs: said.waitMs, signal, adopted: false, recovering: true },
  });
  return { ...common, ...page, report: "nothing" };
}

type Waiting = {
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** A cell that was adopted is told its stage too; a stage that it is not in yet is news. */
  readonly adopted: boolean;
  /** Nothing is said of standbys until it is known again who owns what. */
  readonly recovering: boolean;
};

type Told = Pick<AgentSyncResponse, "stage" | "stageNumber" | "partners" | "annex" | "leaseMode">;

/** What the cell is to be, and what its database does not have yet. */
async function wordsFor(
  { context: { database, settings } }: Desk,
  said: AgentSyncRequest,
  { adopted, recovering }: Waiting,
): Promise<{ readonly told: Told; readonly isNews: boolean }> {
  const pairs = recovering ? undefined : settings.standbys;
  const [goal, { isNews: isStandbyNews, ...standby }, leases] = await Promise.all([
    adopted ? readStageGoal(database.read, said.cell) : undefined,
    standbyWord(database.read, said, pairs),
    recovering ? undefined : leaseModeWord(database.read, said),
  ]);
  const isStageNews = goal !== undefined && isNewStage(said, goal);
  const stage = goal === undefined ? {} : { stage: goal.stage, stageNumber: goal.number };
  const leaseMode = leases === undefined ? {} : { leaseMode: leases.word };
  return {
    told: { ...stage, ...standby, ...leaseMode },
    isNews: isStageNews || isStandbyNews || leases?.isNews === true,
  };
}

async function waitForChanges(
  desk: Desk,
  said: AgentSyncRequest,
  waiting: Waiting,
): Promise<OwnershipPage & Told & Pick<AgentSyncResponse, "queries">> {
  const { clock } = desk.context;
  const { waitMs, signal } = waiting;
  const deadlineMs = clock.monotonicMs() + Math.min(waitMs, agentWaitMsMax);
  for (;;) {
    const turn = desk.questions.turn(said, deadlineMs - clock.monotonicMs(), signal);
    const seen = await lookFor(desk, said, waiting, turn);
    const leftMs = deadlineMs - clock.monotonicMs();
    if (!seen.isNews && leftMs > 0 && !signal.aborted) {
      await turn.wait((stop) => desk.feed.changed(leftMs, stop));
      if (clock.monotonicMs() < deadlineMs) continue;
      // Nothing came: what was seen holds, and what comes now the next call finds.
    }
    const { page } = seen;
    // The cursor never falls, also where the log has not caught up with the cell yet.
    const revision = must(parseRevision(Math.max(page.revision, said.appliedRevision)), "revision");
    const changes = await withOpenPurges(desk, said, page.changes);
    return { ...page, changes, revision, ...turn.end(seen.asked), ...seen.told };
  }
}

/** All at one time: in a takeover tenants wait for this answer. */
async function lookFor(desk: Desk, said: AgentSyncRequest, waiting: Waiting, turn: QuestionTurn) {
  const [page, { told, isNews }, asked] = await Promise.all([
    readChanges(desk.context.database.read, said.cell, said.appliedRevision),
    wordsFor(desk, said, waiting),
    turn.asked(),
  ]);
  return { page, told, asked, isNews: page.changes.length > 0 || isNews || asked.isNews };
}

const isNewStage = ({ stage: at }: AgentSyncRequest, { stage, number }: StageGoal): boolean =>
  at?.applied !== stage || (at.number ?? 0) < number;

/** No news: what is open is told with whatever is answered. */
async function withOpenPurges(
  desk: Desk,
  said: AgentSyncRequest,
  changes: OwnershipPage["changes"],
): Promise<OwnershipPage["changes"]> {
  if (!said.primary) return changes;
  const told = new Set<string>(changes.map(({ key }) => key));
  const open = await readOpenPurges(desk.context.database.read, said.cell);
  const room = Math.max(0, changesMax - changes.length);
  return [...changes, ...open.filter(({ key }) => !told.has(key)).slice(0, room)];
}
