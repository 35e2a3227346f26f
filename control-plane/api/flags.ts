/** Feature flags and rings of cells: each by its name, as parts of the routing rules. */
import { z } from "zod";
import { acceptedSchema, dryRunSchema, intentSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { flagSchema, ringSchema } from "../../contract/routing-api.ts";
import { featureFlagSchema, policyNameSchema } from "../../contract/traffic-policy.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { changeRules, type Rules, readRules } from "./routing-rules.ts";

const named = { name: policyNameSchema };
const answers = { 200: dryRunSchema, 202: acceptedSchema };
const common = { role: "operator", tag: "flags", answers } as const;

export const flagEndpoints = (context: ApiContext): readonly Endpoint[] => [
  ...flags(context),
  ...rings(context),
];

function flags(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      ...{ method: "get", path: "/v1/flags", role: "viewer", tag: "flags" },
      summary: "List feature flags and for whom they are on.",
      query: pageQuery,
      answers: { 200: list(flagSchema) },
      serve: async ({ query }) => {
        const { policy } = await readRules(context.database.read);
        const rows = Object.entries(policy.flags ?? {}).map(([id, flag]) => ({ id, ...flag }));
        return { status: 200, body: pageOf(rows, query) };
      },
    }),
    mutation(context, {
      ...{ ...common, method: "put", path: "/v1/flags/{name}", params: named },
      summary: "Say for whom a feature flag is on; what it said before is replaced.",
      body: z.strictObject({ ...featureFlagSchema.shape, ...intentSchema.shape }),
      action: "flag.set",
      object: ({ path }) => path.name,
      apply: (work, { path: { name }, body }) => {
        const { reason: _, ...flag } = body;
        return changeFlags(context, work, `set flag ${name}`, (before) => ({
          ...before,
          [name]: flag,
        }));
      },
    }),
    mutation(context, {
      ...{ ...common, method: "delete", path: "/v1/flags/{name}", params: named },
      summary: "Forget a feature flag: it is off for everybody.",
      body: intentSchema,
      action: "flag.delete",
      object: ({ path }) => path.name,
      apply: (work, { path: { name } }) =>
        changeFlags(context, work, `forget flag ${name}`, (before) =>
          without(before, name, "flag"),
        ),
    }),
  ];
}

function rings(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      ...{ method: "get", path: "/v1/rings", role: "viewer", tag: "flags" },
      summary: "List rings and the cells in them.",
      query: pageQuery,
      answers: { 200: list(ringSchema) },
      serve: async ({ query }) => {
        const { policy } = await readRules(context.database.read);
        const rows = Object.entries(policy.rings ?? {}).map(([id, cells]) => ({ id, cells }));
        return { status: 200, body: pageOf(rows, query) };
      },
    }),
    mutation(context, {
      ...{ ...common, method: "put", path: "/v1/rings/{name}", params: named },
      summary: "Say which cells are in a ring.",
      body: z.strictObject({ cells: z.array(cellIdSchema).max(1000), ...intentSchema.shape }),
      action: "ring.set",
      object: ({ path }) => path.name,
      apply: (work, { path: { name }, body: { cells } }) =>
        changeRings(context, work, `set ring ${name}`, (before) => ({ ...before, [name]: cells })),
    }),
    mutation(context, {
      ...{ ...common, method: "delete", path: "/v1/rings/{name}", params: named },
      summary: "Forget a ring; flags that name it are no longer on for its cells.",
      body: intentSchema,
      action: "ring.delete",
      object: ({ path }) => path.name,
      apply: (work, { path: { name } }) =>
        changeRings(context, work, `forget ring ${name}`, (before) =>
          without(before, name, "ring"),
        ),
    }),
  ];
}

type Policy = Rules["policy"];
type PolicyPart<Part extends "flags" | "rings"> = NonNullable<Policy[Part]>;

const changePolicy = (
  context: ApiContext,
  work: Work,
  text: string,
  change: (before: Policy) => Policy,
): Promise<Answer> =>
  changeRules(context, work, (rules) => ({ ...rules, policy: change(rules.policy) }), text);

const changeFlags = (
  context: ApiContext,
  work: Work,
  text: string,
  change: (before: PolicyPart<"flags">) => PolicyPart<"flags">,
): Promise<Answer> =>
  changePolicy(context, work, text, (before) => ({ ...before, flags: change(before.flags ?? {}) }));

const changeRings = (
  context: ApiContext,
  work: Work,
  text: string,
  change: (before: PolicyPart<"rings">) => PolicyPart<"rings">,
): Promise<Answer> =>
  changePolicy(context, work, text, (before) => ({ ...before, rings: change(before.rings ?? {}) }));

function without<T>(
  before: Readonly<Record<string, T>>,
  name: string,
  kind: "flag" | "ring",
): Record<string, T> {
  if (!Object.hasOwn(before, name)) {
    const code = kind === "flag" ? "FLAG_UNKNOWN" : "RING_UNKNOWN";
    throw new CellError(code, `There is no ${kind} ${name}.`, {
      nextSteps: [`cellctl ${kind} ls`],
    });
  }
  return Object.fromEntries(Object.entries(before).filter(([other]) => other !== name));
}

type Query = { readonly cursor?: string | undefined; readonly limit: number };

function pageOf<T extends { readonly id: string }>(all: readonly T[], query: Query) {
  const after = decodeCursor(query.cursor, "");
  const rows = all.filter(({ id }) => id > after).sort((a, b) => (a.id < b.id ? -1 : 1));
  return page(rows, query.limit, ({ id }) => id);
}
