/** Objectives and their budgets: read by everybody, set by operators. */
import { acceptedSchema, dryRunSchema, intentSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  everything,
  type Objective,
  objectiveDefaults,
  objectiveIdSchema,
  type Slo,
  type SloState,
  setObjectiveSchema,
  sloSchema,
} from "../../contract/slo-api.ts";
import { onePlan } from "../core/ops/machine.ts";
import { readCells } from "../store/fleet-store.ts";
import {
  readObjectives,
  readSlos,
  readStopping,
  removeObjective,
  setObjective,
  writeBurnt,
} from "../store/slo.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { pageQuery } from "./paging.ts";

const tag = "safety";
const answers = { 200: dryRunSchema, 202: acceptedSchema };
const common = { role: "operator", tag, answers } as const;
const named = { id: objectiveIdSchema };
/** Budgets of a fleet are few: a page holds them all. */
const objectivesMax = 200;

export function sloEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      ...{ method: "get", path: "/v1/slos", role: "viewer", tag },
      summary: "Service level objectives, with what is left of each error budget.",
      query: pageQuery,
      answers: { 200: list(sloSchema) },
      serve: async () => ({
        status: 200,
        body: { items: (await database.snapshot(readSlos)).map(rounded), next: null },
      }),
    }),
    endpoint({
      ...{ method: "get", path: "/v1/slos/{id}", role: "viewer", tag },
      summary: "One objective, with the budget of every cell that is held to it.",
      params: named,
      answers: { 200: sloSchema },
      serve: async ({ path: { id } }) => {
        const slos = await database.snapshot(readSlos);
        const found = slos.find((one) => one.id === id);
        if (found === undefined) throw unknown(id);
        return { status: 200, body: rounded(found) };
      },
    }),
    mutation(context, {
      ...{ ...common, method: "put", path: "/v1/slos/{id}", params: named },
      summary: "Set an objective; what is not said stays as it was.",
      body: setObjectiveSchema,
      action: "slo.set",
      object: ({ path }) => path.id,
      apply: async (work, { path: { id }, body: { reason: _r, dryRun: _d, ...wanted } }) => {
        const all = await readObjectives(work.tx);
        const before = all.find((one) => one.id === id) ?? null;
        if (before === null && all.length >= objectivesMax) throw tooMany();
        const said = Object.entries(wanted).filter(([, value]) => value !== undefined);
        const after = {
          ...(before ?? { id, ...objectiveDefaults }),
          ...Object.fromEntries(said),
          ...{ by: work.actor.name, reason: work.reason },
        };
        if (wanted.cell !== undefined) await requireCell(work, wanted.cell);
        const { since: _s, ...objective } = { since: "", ...after };
        return change(context, work, {
          ...{ id, what: `hold ${wordsOf(objective)}`, before, after: objective },
          apply: () => setObjective(work.tx, objective),
        });
      },
    }),
    mutation(context, {
      ...{ ...common, method: "delete", path: "/v1/slos/{id}", params: named },
      summary: "Forget an objective; what was counted stays.",
      body: intentSchema,
      action: "slo.delete",
      object: ({ path }) => path.id,
      apply: async (work, { path: { id } }) => {
        const before = (await readObjectives(work.tx)).find((one) => one.id === id);
        if (before === undefined) throw unknown(id);
        if (work.reason === "") {
          throw new CellError(
            "VALIDATION_FAILED",
            `${id} would hold nobody back any more: say why with a reason.`,
            { nextSteps: [`cellctl slo rm ${id} --reason "…"`] },
          );
        }
        return change(context, work, {
          ...{ id, what: `forget the objective ${id}`, before, after: null },
          apply: () => removeObjective(work.tx, id),
        });
      },
    }),
  ];
}

/** Four digits say all that a share of counts can. */
const digits = (value: number): number => Number(value.toPrecision(4));
const roundedState = (state: SloState): SloState => ({
  ...state,
  budget: digits(state.budget),
  left: Math.round(state.left * 1e4) / 1e4,
  burn: {
    ...{ "5m": digits(state.burn["5m"]), "30m": digits(state.burn["30m"]) },
    ...{ "1h": digits(state.burn["1h"]), "6h": digits(state.burn["6h"]) },
  },
});
const rounded = (slo: Slo): Slo => ({
  ...slo,
  worst: slo.worst === null ? null : roundedState(slo.worst),
  cells: slo.cells.map(roundedState),
});

const unknown = (id: string): CellError =>
  new CellError("NOT_FOUND", `There is no objective ${id}.`, { nextSteps: ["cellctl slo ls"] });
const tooMany = (): CellError =>
  new CellError("STATE_CONFLICT", `A fleet has at most ${objectivesMax} objectives.`, {
    nextSteps: ["cellctl slo ls"],
  });

async function requireCell(work: Work, cell: string): Promise<void> {
  if (cell === everything) return;
  const found = (await readCells(work.tx)).find(({ id }) => id === cell);
  if (found?.annex === null) return;
  throw new CellError("CELL_UNKNOWN", `There is no cell ${cell} in this fleet.`, {
    nextSteps: ["cellctl cell ls"],
  });
}

const wordsOf = ({ cell, service, tier, target, windowDays }: Omit<Objective, "since">): string => {
  const parts = [
    cell === everything ? "every cell" : cell,
    ...(service === everything ? [] : [`service ${service}`]),
    ...(tier === everything ? [] : [`tier ${tier}`]),
  ];
  return `${parts.join(", ")} to ${Math.round(target * 1e5) / 1e3} % of requests over ${windowDays} d`;
};

/** Done in the transaction that records it; a budget that it frees is free at once. */
async function change(
  context: ApiContext,
  work: Work,
  how: {
    readonly id: string;
    readonly what: string;
    readonly before: unknown;
    readonly after: unknown;
    readonly apply: () => Promise<void>;
  },
): Promise<Answer> {
  const { id: object, what } = how;
  const plan = onePlan("safety.change", [{ action: "set", object, text: what }]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(how.before, how.after);
  await how.apply();
  await writeBurnt(work.tx, await readStopping(work.tx));
  return accept(work, {
    ...{ id: freshOpId(context, work), kind: "safety.change", object, plan },
    ...{ input: {}, headline: `${what}: done`, done: true, nextSteps: ["cellctl slo ls"] },
  });
}
