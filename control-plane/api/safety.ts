/** The fleet-wide lever, gating switches and limits: read by everybody, set by operators, each with a reason. */
import type { z } from "zod";
import { acceptedSchema, dryRunSchema, intentSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  engageLeverSchema,
  leverSchema,
  safetyLimitsSchema,
  safetySchema,
  setLimitsSchema,
  setSwitchSchema,
  switchSchema,
} from "../../contract/safety-api.ts";
import { counted } from "../core/counted.ts";
import { didYouMean } from "../core/did-you-mean.ts";
import { wholeCells } from "../core/fleet.ts";
import { onePlan } from "../core/ops/machine.ts";
import { namesSwitchable, switchableKinds } from "../core/rules/operations.ts";
import { judgeOperation } from "../core/rules/rules.ts";
import { recordEvents } from "../store/events.ts";
import { readCells } from "../store/fleet-store.ts";
import {
  readRulesView,
  readSafety,
  readSwitches,
  removeSwitch,
  setLever,
  setLimits,
  setSwitch,
} from "../store/safety.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { pageQuery } from "./paging.ts";

const tag = "safety";
const answers = { 200: dryRunSchema, 202: acceptedSchema };
const common = { role: "operator", tag, answers } as const;
const named = { id: switchSchema.shape.id };

export function safetyEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      ...{ method: "get", path: "/v1/safety", role: "viewer", tag },
      summary: "Lever, limits, and what the rules say now of an operation that can wait.",
      answers: { 200: safetySchema },
      serve: async () => {
        const body = await context.database.snapshot(async (tx) => ({
          ...(await readSafety(tx)),
          verdicts: [...judgeOperation(await readRulesView(tx), { kind: "rebalance.apply" })],
        }));
        return { status: 200, body };
      },
    }),
    endpoint({
      ...{ method: "get", path: "/v1/lever", role: "viewer", tag },
      summary: "The fleet-wide lever: engaged, it stops every operation that is not a repair.",
      answers: { 200: leverSchema },
      serve: async () => ({ status: 200, body: (await readSafety(context.database.read)).lever }),
    }),
    ...levers(context),
    ...switches(context),
    mutation(context, {
      ...{ ...common, method: "put", path: "/v1/safety/limits" },
      summary: "What the rules count by; what is not said stays as it is.",
      body: setLimitsSchema,
      action: "safety.limits",
      object: () => "fleet",
      apply: async (work, { body: { reason: _r, dryRun: _d, ...wanted } }) => {
        const { limits } = await readSafety(work.tx);
        const said = Object.entries(wanted).filter(([, value]) => value !== undefined);
        await requireReachable(work, wanted);
        const after = safetyLimitsSchema.parse({ ...limits, ...Object.fromEntries(said) });
        return change(context, work, {
          what: "set the limits of the safety rules",
          ...{ object: "fleet", before: limits, after },
          apply: () => setLimits(work.tx, after),
        });
      },
    }),
  ];
}

/** A limit that the whole fleet could not meet would refuse every operation for good. */
async function requireReachable(
  { tx }: Work,
  wanted: Pick<z.output<typeof setLimitsSchema>, "healthyCellsMin" | "openCellsMin">,
): Promise<void> {
  const cells = wholeCells(await readCells(tx)).filter(({ state }) => state !== "retired").length;
  for (const [option, value] of [
    ["--healthy-cells", wanted.healthyCellsMin],
    ["--open-cells", wanted.openCellsMin],
  ] as const) {
    if (value === undefined || value === 0 || value < cells) continue;
    throw new CellError(
      "VALIDATION_FAILED",
      `${option} ${value}: so many others must stay when one cell is taken away, and the fleet has ${counted(cells, "cell")}: at most ${Math.max(0, cells - 1)}.`,
      { nextSteps: ["cellctl cell ls", "cellctl lever status"], details: { cells } },
    );
  }
}

const levers = (context: ApiContext): readonly Endpoint[] =>
  ([true, false] as const).map((engaged) =>
    mutation(context, {
      ...{ ...common, method: "post", path: `/v1/lever/${engaged ? "engage" : "release"}` },
      summary: engaged
        ? "Stop every operation that is not a repair, until the lever is released."
        : "Let operations go on that waited for the lever.",
      body: engageLeverSchema,
      action: engaged ? "lever.engage" : "lever.release",
      object: () => "fleet",
      apply: async (work) => {
        const { lever } = await readSafety(work.tx);
        if (lever.engaged === engaged) throw leverStands(engaged, lever);
        const by = work.actor.name;
        const { reason } = work;
        return change(context, work, {
          what: engaged ? "engage the lever" : "release the lever",
          ...{ object: "fleet", before: lever, after: { engaged, by, reason } },
          apply: async () => {
            await setLever(work.tx, { engaged, by, reason });
            const text = engaged
              ? `${by} engaged the lever: ${reason}. Only repairs go on.`
              : `${by} released the lever: ${reason}.`;
            await recordEvents(work.tx, [
              { kind: engaged ? "lever.engaged" : "lever.released", object: "fleet", text },
            ]);
          },
        });
      },
    }),
  );

const leverStands = (engaged: boolean, lever: z.infer<typeof leverSchema>): CellError =>
  new CellError(
    "STATE_CONFLICT",
    engaged
      ? `The lever is engaged already, since ${lever.since} by ${lever.by}: ${lever.reason}`
      : "The lever is not engaged.",
    { nextSteps: ["cellctl lever status"] },
  );

const switches = (context: ApiContext): readonly Endpoint[] => [
  endpoint({
    ...{ method: "get", path: "/v1/switches", role: "viewer", tag },
    summary: "Gating switches: operations that one names need it open.",
    query: pageQuery,
    answers: { 200: list(switchSchema) },
    serve: async () => ({
      status: 200,
      body: { items: await readSwitches(context.database.read), next: null },
    }),
  }),
  mutation(context, {
    ...{ ...common, method: "put", path: "/v1/switches/{id}", params: named },
    summary: "Open or close a gating switch, and say which operations need it open.",
    body: setSwitchSchema,
    action: "switch.set",
    object: ({ path }) => path.id,
    apply: async (work, { path: { id }, body: { open, kinds } }) => {
      for (const kind of kinds ?? []) requireKind(kind);
      const all = await readSwitches(work.tx);
      const before = all.find((one) => one.id === id) ?? null;
      // Closing makes one; an open one that names nothing would only be a slip of the pen.
      if (before === null && open && kinds === undefined) throw noSwitch(id, all);
      const by = work.actor.name;
      const after = { id, open, kinds, by, reason: work.reason };
      return change(context, work, {
        what: `${open ? "open" : "close"} the switch ${id}`,
        ...{ object: id, before, after },
        apply: () => setSwitch(work.tx, after),
      });
    },
  }),
  mutation(context, {
    ...{ ...common, method: "delete", path: "/v1/switches/{id}", params: named },
    summary: "Forget a gating switch.",
    body: intentSchema,
    action: "switch.delete",
    object: ({ path }) => path.id,
    apply: async (work, { path: { id } }) => {
      const all = await readSwitches(work.tx);
      const before = all.find((one) => one.id === id);
      if (before === undefined) throw noSwitch(id, all);
      return change(context, work, {
        what: `forget the switch ${id}`,
        ...{ object: id, before, after: null },
        apply: async () => {
          await removeSwitch(work.tx, id);
        },
      });
    },
  }),
];

const noSwitch = (id: string, all: readonly { readonly id: string }[]): CellError => {
  const known = all.map((one) => one.id);
  const near = didYouMean(id, known).map((other) => `Did you mean ${other}?`);
  return new CellError("NOT_FOUND", `There is no switch ${id}.`, {
    nextSteps: [...near, "cellctl lever switches"],
  });
};

/** A switch that names what nobody does would look closed and stop nothing. */
function requireKind(kind: string): void {
  if (namesSwitchable(kind)) return;
  throw new CellError(
    "VALIDATION_FAILED",
    `No operation that a switch can stop is called ${kind}; there are ${switchableKinds.join(", ")}, and patterns such as cell.*`,
    { nextSteps: ["cellctl lever close --help"], details: { kinds: switchableKinds } },
  );
}

/** Done in the transaction that records it: there is nothing to wait for. */
async function change(
  context: ApiContext,
  work: Work,
  {
    what,
    object,
    before,
    after,
    apply,
  }: {
    readonly what: string;
    readonly object: string;
    readonly before: unknown;
    readonly after: unknown;
    readonly apply: () => Promise<void>;
  },
): Promise<Answer> {
  const plan = onePlan("safety.change", [{ action: "set", object, text: what }]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(before, after);
  await apply();
  return accept(work, {
    ...{ id: freshOpId(context, work), kind: "safety.change", object, plan },
    ...{ input: {}, headline: `${what}: done`, done: true, nextSteps: ["cellctl lever status"] },
  });
}
