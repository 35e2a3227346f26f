/**
 * The old owner stops, certainly, and nothing of it comes any more: lease and promises are waited out,
 * then the streams are cut (rules R3, R4). Until the streams are cut the cell may have its lease back.
 */
import type { SeveredAt, StandbyPair } from "../../../../standby/ports.ts";
import type { AnnexFact } from "../../../core/failover/phases.ts";
import { judgeStopping, stoppingText } from "../../../core/failover/stopped.ts";
import { requireNoAbort } from "../../../store/failover/enter.ts";
import { annexesOf, giveBackCell, openOrders, readOrders } from "../../../store/failover/revoke.ts";
import { annexesIn, atAnnexes, type Facts, serveAll, without } from "../adopters.ts";
import { activateAhead, reachAhead } from "../ahead.ts";
import type { Step, StepContext, StepResult } from "../world.ts";

const lookEveryMs = 50;
const leaseLookMs = 250;
const deadLookEveryMs = 1000;
/** A database that is gone may take its time to say so. */
const statusMs = 500;

export const revoking: Step = async (context) => {
  const { world, run, memory, wait, note } = context;
  if (run.wish === "abort") return calledOff(context);
  const { annexes } = run.evidence;
  await serveAll(context, annexesIn(annexes, "ordered"));
  reachAhead(context, annexesIn(annexes, "ordered"));
  lookIfDead(context);
  const ordered = annexesIn(annexes, "ordered");
  const orders = await readOrders(world.database.read, run, run.attempt);
  const found = judgeStopping(
    {
      leaseWaitMs: run.evidence.lease?.waitMs ?? 0,
      elapsedMs: world.clock.monotonicMs() - memory.enteredMs,
      annexes: orders.filter(({ annex }) => ordered.includes(annex)),
      proved: run.provedDead || memory.proof !== "",
    },
    world.patience,
  );
  if (!found.isOver) {
    await note(stoppingText(run.cell, found));
    // Whoever wants something else of it wakes this up; until the lease is over nothing can come of it.
    await wait(found.leaseLeftMs > 0 ? Math.min(leaseLookMs, found.leaseLeftMs) : lookEveryMs);
    return undefined;
  }
  let facts: Facts = annexes;
  for (const annex of found.silent) {
    facts = without(facts, annex, "its agent has not recorded the order: it may still promise");
  }
  for (const annex of found.stopped)
    facts = { ...facts, [annex]: { status: "stopped", reason: "" } };
  const proof = run.provedDead ? "somebody has seen that it is powered off" : memory.proof;
  return {
    event: "stopped",
    headline: `${run.cell} certainly acknowledges nothing any more; cutting its streams`,
    patch: { fenced: true, evidence: { annexes: facts, ...(proof === "" ? {} : { proof }) } },
    within: async (tx) => {
      await requireNoAbort(tx, run.id);
      return {};
    },
  };
};

function calledOff({ run }: StepContext): StepResult {
  const text = `${run.cell} may have its lease again; nothing was taken from it`;
  return {
    event: "aborted",
    headline: text,
    within: (tx) => giveBackCell(tx, run),
    events: [{ kind: "failover.aborted", object: run.cell, text: `${run.id}: ${text}.` }],
  };
}

/** Asked again and again, besides: proof ends the wait for promises, and nothing else. */
function lookIfDead(context: StepContext): void {
  const { world, run, memory, signal } = context;
  const nowMs = world.clock.monotonicMs();
  const isTime = nowMs - memory.lookedDeadMs >= deadLookEveryMs;
  if (!isTime || memory.lookingDead !== undefined || memory.proof !== "") return;
  memory.lookedDeadMs = nowMs;
  memory.lookingDead = world.provider
    .look(run.cell, signal)
    .then(({ provedDead, text }) => {
      memory.proof = provedDead === true ? `the provider: ${text}` : "";
    })
    .catch(() => undefined) // No provider, or it does not know: then there is no proof.
    .finally(() => {
      memory.lookingDead = undefined;
    });
}

export const severing: Step = async (context) => {
  const { world, run } = context;
  await drain(context);
  // A second executor cuts again what the first one has cut: it is cut already.
  const before = withStatus(run.evidence.annexes, "severed", "stopped");
  const facts = await atAnnexes(context, before, "stopped", async (row) => {
    const fact = await cut(await world.pairOf(row), world.standby.sever);
    // Whole servers are started anew for it: an executor that comes after this one, and cuts again, would meet that.
    if (row.provider === "logical") void activateAhead(context, row);
    return fact;
  });
  const severed = annexesIn(facts, "severed");
  return {
    event: "severed",
    headline:
      severed.length === 0
        ? `nobody has a copy of the keys of ${run.cell} that may be used`
        : `streams to ${severed.join(", ")} are cut; giving keys away`,
    patch: { evidence: { annexes: facts } },
    within: async (tx) => {
      await openOrders(tx, { ...run, evidence: { ...run.evidence, annexes: facts } });
      return {};
    },
    events: [
      {
        kind: "failover.severed",
        object: run.cell,
        text: `${run.id}: nothing of ${run.cell} reaches its standbys any more.`,
      },
    ],
  };
};

const withStatus = (facts: Facts, from: AnnexFact["status"], to: AnnexFact["status"]): Facts =>
  Object.fromEntries(
    Object.entries(facts).map(([annex, fact]) => [
      annex,
      fact.status === from ? { ...fact, status: to } : fact,
    ]),
  );

async function cut(
  pair: StandbyPair,
  sever: (pair: StandbyPair) => Promise<SeveredAt>,
): Promise<AnnexFact> {
  const { stores, heartbeatAgeMs } = await sever(pair);
  return { status: "severed", reason: "", severed: { stores: [...stores], heartbeatAgeMs } };
}

/**
 * An origin whose databases live can write nothing more, but its last rows may be on their way: with them
 * nothing is lost. One that does not answer is not waited for, nor one that is proved dead.
 */
async function drain(context: StepContext): Promise<void> {
  const { world, run, memory, signal } = context;
  if (run.provedDead || memory.proof !== "") return;
  const untilMs = world.clock.monotonicMs() + world.patience.drainMs;
  for (;;) {
    const lags = await lagsOf(context);
    const isBehind = lags.some((lag) => lag !== null && lag > 0);
    if (!isBehind || world.clock.monotonicMs() >= untilMs || signal.aborted) return;
    await context.note(`the last rows of ${run.cell} are on their way`);
    await world.clock.sleep(lookEveryMs, signal);
  }
}

async function lagsOf({ world, run }: StepContext): Promise<ReadonlyArray<number | null>> {
  const rows = await annexesOf(world.database.read, run.cell);
  const own = rows.filter(({ annex }) => run.evidence.annexes[annex]?.status === "stopped");
  return Promise.all(
    own.map(async (row) => {
      const late = new AbortController();
      const never = world.clock.sleep(statusMs, late.signal).then(() => null);
      const status = world
        .pairOf(row)
        .then((pair) => world.standby.status(pair))
        .then(({ lagBytes }) => lagBytes)
        .catch(() => null);
      const lag = await Promise.race([status, never]);
      late.abort();
      return lag;
    }),
  );
}
