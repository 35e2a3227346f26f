/** Failovers: planned, begun, listed, followed; detection and its policy. */
import { z } from "zod";
import { intentSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  beginFailoverSchema,
  detectionSchema,
  type FailoverAction,
  failoverActedSchema,
  failoverActions,
  failoverDryRunSchema,
  failoverSchema,
  planFailoverSchema,
  setFailoverPolicySchema,
} from "../../contract/failover-api.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import type { Verdict } from "../core/failover/detect.ts";
import { isFailoverEnd } from "../core/failover/failover-state.ts";
import { wholeCells } from "../core/fleet.ts";
import { databaseNowMs, type Reader } from "../store/database.ts";
import {
  type FailoverRow,
  findFailover,
  listFailovers,
  toFailover,
} from "../store/failover/read.ts";
import { readDesk, setPolicy } from "../store/failover/witnesses.ts";
import { readCells } from "../store/fleet-store.ts";
import { channels } from "../store/notify.ts";
import { lockFleet } from "../store/routing-change.ts";
import { requireCell } from "./cell-lookup.ts";
import { type ApiContext, waitMsMax } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { actOnFailover, beginFailover, failoverUnknown, planOf } from "./failover-start.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { waitFor } from "./wait-for.ts";

const tag = "failover";
const idParams = { id: z.string().min(1).max(64) };

export function failoverEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      method: "post",
      path: "/v1/failovers/plan",
      role: "operator",
      tag,
      summary: "What a failover of a cell would do, and which gates are closed; changes nothing.",
      body: planFailoverSchema,
      answers: { 200: failoverDryRunSchema },
      serve: async ({ body }) => ({ status: 200, body: await planOf(context, body) }),
    }),
    mutation(context, {
      method: "post",
      path: "/v1/failovers",
      role: "operator",
      tag,
      summary: "Begin to take the tenants of a cell over; refused while a gate is closed.",
      body: beginFailoverSchema,
      answers: { 200: failoverDryRunSchema, 202: failoverActedSchema },
      action: "failover.start",
      object: ({ body }) => body.cell,
      apply: (work, { body }) => beginFailover(context, work, body),
    }),
    listEndpoint(context),
    getEndpoint(context),
    ...failoverActions.map((action) => actionEndpoint(context, action)),
    ...policyEndpoints(context),
  ];
}

const listEndpoint = ({ database }: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/failovers",
    role: "viewer",
    tag,
    summary: "List failovers, newest first.",
    query: {
      ...pageQuery,
      cell: cellIdSchema.optional(),
      /** Only those that are not over, or that are. */
      open: z.stringbool().optional(),
    },
    answers: { 200: list(failoverSchema) },
    serve: async ({ query }) => {
      const { limit, cursor, cell, open } = query;
      if (cell !== undefined) await requireCell(database.read, cell);
      const before = cursor === undefined ? undefined : decodeCursor(cursor, "");
      const rows = await listFailovers(database.read, { before, cell, open, limit: limit + 1 });
      const shown = page(rows, limit, ({ op }) => op.id);
      return { status: 200, body: { items: shown.items.map(toFailover), next: shown.next } };
    },
  });

const getEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/failovers/{id}",
    role: "viewer",
    tag,
    summary: "One failover; with `after` and `waitMs`, as soon as its version is greater.",
    params: idParams,
    query: {
      waitMs: z.coerce.number().int().min(0).max(waitMsMax).default(0),
      after: z.coerce.number().int().min(0).optional(),
    },
    answers: { 200: failoverSchema },
    serve: async ({ path, query, request }) => {
      const after = query.after ?? -1;
      const row = await waitFor(
        context,
        {
          ...{ channel: channels.op, topic: path.id },
          ...{ waitMs: query.waitMs, signal: request.signal },
        },
        async () => {
          const found = await findFailover(context.database.read, path.id);
          if (found === undefined) throw failoverUnknown(path.id);
          return toFailover(found);
        },
        ({ op, step }) => op.version > after || isFailoverEnd(step),
      );
      return { status: 200, body: row };
    },
  });

const summaries: Readonly<Record<FailoverAction, string>> = {
  abort: "Call it off, while nothing is severed: the cell gets its lease again.",
  resume: "Go on after a halt, without the tenants that are suspected.",
};

const actionEndpoint = (context: ApiContext, action: FailoverAction): Endpoint =>
  mutation(context, {
    method: "post",
    path: `/v1/failovers/{id}/${action}`,
    role: "operator",
    tag,
    summary: summaries[action],
    params: idParams,
    body: intentSchema,
    answers: { 200: failoverActedSchema, 202: failoverActedSchema },
    action: `failover.${action}`,
    object: ({ path }) => path.id,
    apply: (work, { path }) => actOnFailover(work, { id: path.id, action }),
  });

const policyEndpoints = (context: ApiContext): readonly Endpoint[] => [
  endpoint({
    method: "get",
    path: "/v1/detection",
    role: "viewer",
    tag,
    summary: "What witnesses say of every cell, and what is done about one that is gone.",
    answers: { 200: detectionSchema },
    serve: async () => ({ status: 200, body: await detection(context, context.database.read) }),
  }),
  mutation(context, {
    method: "put",
    path: "/v1/failover-policy",
    role: "admin",
    tag,
    summary: "Say what is done about a cell that is gone: nothing, a word, or a failover.",
    body: setFailoverPolicySchema,
    answers: { 200: detectionSchema },
    action: "failover.policy",
    object: ({ body }) => body.policy ?? "as started",
    apply: (work, { body }) => changePolicy(context, work, body.policy),
  }),
];

async function detection(
  { settings }: ApiContext,
  reader: Reader,
): Promise<z.input<typeof detectionSchema>> {
  const desk = await readDesk(reader);
  return {
    policy: desk.policy ?? settings.failover,
    policyFrom: desk.policy === null ? "flag" : "runtime",
    ...{ policyBy: desk.policyBy, policyReason: desk.policyReason },
    policyAt: desk.policyAt?.toISOString() ?? null,
    ageMs: desk.ageMs === null ? null : Math.max(0, Math.round(desk.ageMs)),
    cells: [
      ...desk.verdicts.map(({ cell, state, text, witnesses, ...since }) => ({
        ...{ id: cellIdSchema.parse(cell), state, text, witnesses: [...witnesses] },
        forMs: Math.round(shownForMs(since, desk.ageMs)),
      })),
      ...(await takenOver(reader)),
    ].sort((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

/**
 * A verdict flaps while a witness has nothing to say for a moment: since when it has been so bad tells people
 * nothing, since when it has not been well does.
 */
const shownForMs = (
  { forMs, episode }: Pick<Verdict, "forMs" | "episode">,
  ageMs: number | null,
): number => {
  const since = Math.max(0, ageMs ?? 0);
  return (episode?.forMs ?? forMs) + (since < writtenDownEveryMs ? since : 0);
};
/** Nobody looks where nothing was written for longer: then it is told as of then. */
const writtenDownEveryMs = 3000;

/** Nobody judges them any more, and whoever looks here in the middle of it, or afterwards, looks for them. */
async function takenOver(reader: Reader) {
  const cells = wholeCells(await readCells(reader)).filter(
    ({ state, revoking }) => state === "quarantined" && revoking,
  );
  const nowMs = await databaseNowMs(reader);
  return Promise.all(
    cells.map(async ({ id, health }) => {
      const last = await lastTakeoverOf(reader, id);
      const text =
        last === undefined
          ? `failed over, by an operation that is not known any more; it is quarantined and ${health}`
          : `${last.op.headline} (${last.op.id}, ${last.op.step}); it is quarantined and ${health}`;
      const forMs = last === undefined ? 0 : nowMs - last.failover.createdAt.getTime();
      return {
        ...{ id: cellIdSchema.parse(id), state: "gone" as const, text, witnesses: [] },
        forMs: Math.max(0, Math.round(forMs)),
      };
    }),
  );
}

/** The newest that took its lease: one that was called off before left it as it was. */
async function lastTakeoverOf(reader: Reader, cell: string): Promise<FailoverRow | undefined> {
  const rows = await listFailovers(reader, { before: undefined, cell, limit: newestMax });
  return rows.find(({ failover }) => failover.revokedAt !== null);
}
const newestMax = 20;

async function changePolicy(
  context: ApiContext,
  work: Work,
  policy: z.output<typeof setFailoverPolicySchema>["policy"],
): Promise<Answer> {
  const { tx } = work;
  if (policy === "off" && work.reason === "") {
    throw new CellError(
      "VALIDATION_FAILED",
      "Nobody would look at cells any more: say why with a reason.",
      { nextSteps: ['cellctl failover policy off --reason "…"'] },
    );
  }
  await lockFleet(tx);
  if (!work.dryRun) {
    const before = await readDesk(tx);
    await work.record({ policy: before.policy }, { policy });
    await setPolicy(tx, policy, { name: work.actor.name, reason: work.reason });
  }
  return { status: 200, body: await detection(context, tx) };
}
