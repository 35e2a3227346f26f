/** Standbys: list, read, and those of an operator's own: added and taken away. The keeper makes all others by itself. */
import { dryRunSchema, intentSchema, list } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import type { Standby } from "../../contract/standby-api.ts";
import { standbySchema } from "../../contract/standby-api.ts";
import {
  addStandbySchema,
  protectionSchema,
  standbyChangedSchema,
} from "../../contract/standby-requests.ts";
import { onePlan } from "../core/ops/machine.ts";
import { protectionOf } from "../core/standby/protection.ts";
import { isLiving, type StandbyView } from "../core/standby/standby-view.ts";
import { databaseNowMs, type Reader } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { readStandbys } from "../store/standby/read.ts";
import { applyChange } from "../store/standby/record.ts";
import { dryRunAnswer } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { addStandby } from "./standbys-add.ts";
import { requireStandby, toStandby } from "./standbys-shape.ts";

const idParams = { id: cellIdSchema };

export const standbyEndpoints = (context: ApiContext): readonly Endpoint[] => [
  ...looks(context),
  mutation(context, {
    ...{ method: "post", path: "/v1/standbys", role: "operator", tag: "standbys" },
    summary: "Register a standby whose database and agent you run yourself.",
    body: addStandbySchema,
    answers: { 200: dryRunSchema, 201: standbyChangedSchema },
    action: "standby.create",
    object: ({ body }) => body.origin,
    apply: (work, { body }) => addStandby(work, body),
  }),
  mutation(context, {
    ...{ method: "delete", path: "/v1/standbys/{id}", role: "operator", tag: "standbys" },
    summary: "Let a standby leave: its origin forgets it, then it is removed.",
    params: idParams,
    body: intentSchema,
    answers: { 200: dryRunSchema.or(standbyChangedSchema) },
    action: "standby.leave",
    object: ({ path }) => path.id,
    apply: (work, { path }) => leave(context, work, path.id),
  }),
];

const looks = (context: ApiContext): readonly Endpoint[] => [
  endpoint({
    ...{ method: "get", path: "/v1/standbys", role: "viewer", tag: "standbys" },
    summary:
      "List standbys: which cell keeps which buckets of which other cell, and how far behind.",
    query: pageQuery,
    answers: { 200: list(standbySchema) },
    serve: async ({ query }) => {
      const after = decodeCursor(query.cursor, "");
      const rows = (await listStandbys(context.database.read)).filter(({ id }) => id > after);
      return { status: 200, body: page(rows, query.limit, ({ id }) => id) };
    },
  }),
  endpoint({
    ...{ method: "get", path: "/v1/standbys/{id}", role: "viewer", tag: "standbys" },
    summary: "One standby.",
    params: idParams,
    answers: { 200: standbySchema },
    serve: async ({ path }) => {
      const one = await requireStandby(context.database.read, path.id);
      return { status: 200, body: toStandby(one, await databaseNowMs(context.database.read)) };
    },
  }),
  endpoint({
    ...{ method: "get", path: "/v1/protection", role: "viewer", tag: "standbys" },
    summary: "For each cell: how many of its tenants could be taken over now, and why not all.",
    answers: { 200: list(protectionSchema) },
    serve: async () => {
      const items = await context.database.snapshot((tx) => listProtection(context, tx));
      return { status: 200, body: { items, next: null } };
    },
  }),
];

/** In order of this comparison, which the cursor uses too. */
export async function listStandbys(reader: Reader): Promise<Standby[]> {
  const nowMs = await databaseNowMs(reader);
  const rows = await readStandbys(reader);
  return rows.map((one) => toStandby(one, nowMs)).sort((a, b) => (a.id < b.id ? -1 : 1));
}

async function listProtection({ settings }: ApiContext, reader: Reader) {
  const cells = await readCells(reader);
  const found = protectionOf(cells, await readStandbys(reader), settings.standbyPartners ?? 0);
  return found.map(({ cell, host, buckets, unprotected, text }) => ({
    ...{ id: cell, buckets, unprotected, reason: text },
    ...(host === undefined ? {} : { host }),
    tenants: cells.find(({ id }) => id === cell)?.usage.tenants ?? 0,
  }));
}

async function leave(context: ApiContext, work: Work, id: string): Promise<Answer> {
  const { tx, nowMs } = work;
  await lockNormalFleet(tx);
  const one = await requireStandby(tx, id);
  if (!isLiving(one)) {
    throw new CellError("STATE_CONFLICT", `${id} is ${one.state}; it cannot be told to leave.`, {
      details: { state: one.state },
      nextSteps: [`cellctl standby get ${id}`],
    });
  }
  const text = leaveText(context, one);
  if (work.dryRun) {
    return dryRunAnswer(onePlan("standby.leave", [{ action: "leave", object: id, text }]));
  }
  const reason = work.reason === "" ? `${work.actor.name} said so` : work.reason;
  await work.record({ state: one.state }, { state: "leaving" });
  await applyChange(tx, { annex: id, from: one.state, to: "leaving", reason });
  const left = await requireStandby(tx, id);
  const body = { standby: toStandby(left, nowMs), next_steps: ["cellctl standby ls"] };
  return { status: 200, body };
}

function leaveText({ settings }: ApiContext, { annex, origin, byHand }: StandbyView): string {
  const isMadeAnew = !byHand && (settings.standbyPartners ?? 0) > 0;
  const after = isMadeAnew
    ? "; a new one is made where one is wanted, and until then its keys have none"
    : "; its keys have no standby afterwards, unless another one keeps them";
  return `${origin} forgets ${annex}, then its stream is removed${after}`;
}
