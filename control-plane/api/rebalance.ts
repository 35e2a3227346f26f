/**
 * Rebalance: a plan is made from one look at the fleet and answered whole; it is carried out only while the
 * fleet is as it was then. What-if answers the same plan and is never carried out.
 */
import type { z } from "zod";
import { acceptedSchema, dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  applyRebalanceSchema,
  type RebalanceAsk,
  type RebalancePlan,
  rebalanceAskSchema,
  rebalancePlanSchema,
} from "../../contract/rebalance-api.ts";
import { must } from "../../runtime/assert.ts";
import { isoTime } from "../../runtime/clock.ts";
import { areOf, counted } from "../core/counted.ts";
import { onePlan } from "../core/ops/machine.ts";
import { planRebalance } from "../core/rebalance/plan.ts";
import { onlyMends } from "../core/rebalance/progress.ts";
import { readFleetLoad } from "../store/balancing/fleet-load.ts";
import { openBalancings, rebalanceKind, standingsOf } from "../store/balancing/read.ts";
import { databaseNowMs, type Tx } from "../store/database.ts";
import { readCell } from "../store/fleet-store.ts";
import { insertOp } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { fleet } from "../store/schema.ts";
import { dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { requireSafe } from "./require-safe.ts";

const tag = "rebalance";
/** A hundred thousand moves, with their words. */
const planBytesMax = 64 * 1024 * 1024;
const planLivesMs = 15 * 60_000;

export const rebalanceEndpoints = (context: ApiContext): readonly Endpoint[] => [
  endpoint({
    ...{ method: "post", path: "/v1/rebalance/plan", role: "operator", tag },
    summary:
      "What would move where and why; changes nothing. With cells added or removed: what if.",
    body: rebalanceAskSchema,
    answers: { 200: rebalancePlanSchema },
    serve: async ({ body }) => ({
      status: 200,
      body: await context.database.snapshot((tx) => plan(tx, body)),
    }),
  }),
  mutation(context, {
    ...{ method: "post", path: "/v1/rebalance/apply", role: "operator", tag },
    summary:
      "Carry a plan out by live moves; a plan of another fleet or of other placements is refused.",
    body: applyRebalanceSchema,
    bodyBytesMax: planBytesMax,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "rebalance.apply",
    object: () => "fleet",
    recorded: ({ plan: saved }) => ({ revision: saved.revision, moves: saved.moves.length }),
    apply: (work, { body }) => apply(context, work, body),
  }),
];

async function plan(tx: Tx, ask: RebalanceAsk): Promise<RebalancePlan> {
  await requireSense(tx, ask);
  const [head] = await tx.select().from(fleet);
  const { id, revision } = must(head, "fleet row");
  const nowMs = await databaseNowMs(tx);
  const { bins, units } = await readFleetLoad(tx, ask);
  const found = planRebalance(bins, units, ask, nowMs);
  return rebalancePlanSchema.parse({
    kind: "cellfleet.rebalance-plan",
    version: 1,
    ...{ fleet: id, revision, ask },
    madeAt: isoTime(nowMs),
    expiresAt: isoTime(nowMs + planLivesMs),
    whatIf: ask.removeCells.length > 0 || ask.addCells.length > 0,
    moves: found.moves.map((move) => ({ ...move, gain: digits(move.gain) })),
    skipped: found.skipped,
    cells: found.cells.map(({ cell, before, after }) => ({
      ...{ cell, before: digits(before), after: digits(after) },
    })),
    summary: {
      ...{ peakBefore: digits(found.peakBefore), peakAfter: digits(found.peakAfter) },
      bytes: found.bytes,
      // Nobody to take anything: then nothing can be said of what is best.
      peakBound: digits(Number.isFinite(found.peakBound) ? found.peakBound : found.peakBefore),
      text: found.text,
    },
  });
}

/** Of a share of a capacity. */
const digits = (value: number): number => Number(value.toPrecision(4));

async function requireSense(tx: Tx, ask: RebalanceAsk): Promise<void> {
  const { startAbove, stopBelow, removeCells, addCells } = ask;
  if (stopBelow > startAbove) {
    throw nonsense(
      `It would end above where it begins: --stop-below ${stopBelow} is more than --start-above ${startAbove}. Say both.`,
    );
  }
  for (const id of removeCells) await requireCell(tx, id);
  for (const id of addCells) {
    if ((await readCell(tx, id)) === undefined) continue;
    throw nonsense(
      `--add-cell ${id}: it is a cell of this fleet already; what if needs a new name.`,
    );
  }
}

const nonsense = (message: string): CellError =>
  new CellError("VALIDATION_FAILED", message, { nextSteps: ["cellctl rebalance plan --help"] });

type Asked = z.output<typeof applyRebalanceSchema>;

async function apply(context: ApiContext, work: Work, asked: Asked): Promise<Answer> {
  const { tx } = work;
  const { plan: saved, parallelMax } = asked;
  await lockNormalFleet(tx);
  await requireFresh(work, saved);
  const tenants = saved.moves.reduce((sum, { load }) => sum + load.tenants, 0);
  const mends = await isMending(work, saved);
  await requireSafe(
    work,
    { kind: "rebalance.apply", tenants: Math.min(tenants, parallelMax), mends },
    asked.override,
  );
  const steps = saved.moves.slice(0, stepsShownMax).map(({ key, from, to, text }) => ({
    action: "move",
    object: key,
    text: `${from} -> ${to}: ${text}`,
  }));
  const shown = { ...onePlan(rebalanceKind, steps), skipped: saved.skipped };
  if (work.dryRun) return dryRunAnswer(shown);
  const id = freshOpId(context, work);
  await work.record(null, { op: id, revision: saved.revision, moves: saved.moves.length });
  const { override } = asked;
  const op = await insertOp(tx, {
    ...{ id, kind: rebalanceKind, object: "fleet", plan: shown, step: "moving", state: "running" },
    input: {
      moves: saved.moves,
      parallelMax,
      mends,
      ...(override === undefined ? {} : { override }),
    },
    headline: `${counted(saved.moves.length, "move")} ${areOf(saved.moves.length)} to be made, ${parallelMax} at a time`,
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: undefined,
  });
  const next = [`cellctl op watch ${id}`, "cellctl move ls --state running"];
  return { status: 202, body: { op, plan: shown, next_steps: next } };
}

/** What the file says of it is looked at again: a plan for balance does not go past a rule by its own word. */
async function isMending({ tx, nowMs }: Work, { ask, moves }: RebalancePlan): Promise<boolean> {
  if (!onlyMends(moves)) return false;
  const { bins, units } = await readFleetLoad(tx, ask);
  const mending = new Set(
    planRebalance(bins, units, ask, nowMs)
      .moves.filter((move) => onlyMends([move]))
      .map(({ key }) => key),
  );
  return moves.every(({ key }) => mending.has(key));
}

const stepsShownMax = 1000;

/** Throws PLAN_STALE, STATE_CONFLICT, VALIDATION_FAILED. */
async function requireFresh({ tx, nowMs }: Work, saved: RebalancePlan): Promise<void> {
  const [head] = await tx.select({ id: fleet.id }).from(fleet);
  if (head?.id !== saved.fleet) throw stale("The plan is of another fleet");
  if (saved.whatIf) {
    throw new CellError(
      "VALIDATION_FAILED",
      "The plan answers a what-if: it has cells that are not there, or leaves out some that are.",
      { nextSteps: ["cellctl rebalance plan -O plan.json"] },
    );
  }
  if (Date.parse(saved.expiresAt) < nowMs)
    throw stale(`The plan was good until ${saved.expiresAt}`);
  const running = await openRebalance(tx);
  if (running !== undefined) {
    throw new CellError("STATE_CONFLICT", `A rebalance is running already (${running}).`, {
      nextSteps: [`cellctl op watch ${running}`],
    });
  }
  if (saved.moves.length === 0) {
    throw new CellError("STATE_CONFLICT", "The plan moves nothing.", {
      nextSteps: ["cellctl rebalance plan"],
    });
  }
  const standings = await standingsOf(
    tx,
    saved.moves.map(({ key }) => key),
    "",
  );
  for (const { key, from, epoch } of saved.moves) {
    const now = standings.get(key);
    if (now?.cell !== from || now.epoch !== epoch) {
      throw stale(
        `${key} was in ${from} at epoch ${epoch} and is ${now?.cell == null ? "gone" : `in ${now.cell} at epoch ${now.epoch}`}`,
      );
    }
  }
  // Deciders themselves are asked before each move.
  for (const to of new Set(saved.moves.map((move) => move.to))) await requireCell(tx, to);
}

async function openRebalance(tx: Tx): Promise<string | undefined> {
  return (await openBalancings(tx)).find(({ kind }) => kind === rebalanceKind)?.id;
}

const stale = (what: string): CellError =>
  new CellError("PLAN_STALE", `${what}: nothing was moved.`, {
    nextSteps: ["cellctl rebalance plan -O plan.json"],
  });
