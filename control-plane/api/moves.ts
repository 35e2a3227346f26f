/** Moves: planned, begun, listed, watched, and what is asked of one that runs. */
import { z } from "zod";
import { list } from "../../contract/control-api.ts";
import { cellIdSchema, tenantIdSchema } from "../../contract/ids.ts";
import {
  type MoveAction,
  moveActedSchema,
  moveActionSchema,
  moveActions,
  movePlansSchema,
  moveSchema,
  moveStatesAsked,
  moveSteps,
  planMovesSchema,
  startedMovesSchema,
  startMovesSchema,
} from "../../contract/move-api.ts";
import { findMove, listMoves, toMove } from "../store/moves/read.ts";
import { channels } from "../store/notify.ts";
import { requireCell } from "./cell-lookup.ts";
import { type ApiContext, waitMsMax } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { actOnMove, moveUnknown } from "./moves-act.ts";
import { lookBefore, planMoves, startMoves } from "./moves-start.ts";
import { mutation } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";
import { waitFor } from "./wait-for.ts";

const tag = "moves";
/** Any text: an id that cannot be one is as unknown as one that is not. */
const idParams = { id: z.string().min(1).max(64) };

export function moveEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      method: "post",
      path: "/v1/moves/plan",
      role: "operator",
      tag,
      summary: "What a move would do, and what stands against it; changes nothing.",
      body: planMovesSchema,
      answers: { 200: movePlansSchema },
      serve: async ({ body, request }) => ({
        status: 200,
        body: await planMoves(context, body, request.signal),
      }),
    }),
    mutation(context, {
      method: "post",
      path: "/v1/moves",
      role: "operator",
      tag,
      summary: "Begin to move tenants or keys: one operation per group, all or none.",
      body: startMovesSchema,
      answers: { 200: movePlansSchema, 202: startedMovesSchema },
      action: "move.start",
      object: ({ body }) => body.tenants?.[0] ?? body.keys?.[0] ?? body.selector ?? body.to,
      // Databases of cells are looked into: it bounds itself.
      queues: false,
      look: ({ body, request }) => lookBefore(context, body, request.signal),
      apply: (work, { body }, looks) => startMoves(context, work, body, looks ?? new Map()),
    }),
    listEndpoint(context),
    getEndpoint(context),
    ...moveActions.map((action) => actionEndpoint(context, action)),
  ];
}

const listEndpoint = ({ database }: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/moves",
    role: "viewer",
    tag,
    summary: "List moves, newest first.",
    query: {
      ...pageQuery,
      state: z.enum(moveStatesAsked).optional(),
      step: z.enum(moveSteps).optional(),
      /** As source or target. */
      cell: cellIdSchema.optional(),
      tenant: tenantIdSchema.optional(),
      op: z.string().max(64).optional(),
    },
    answers: { 200: list(moveSchema) },
    serve: async ({ query }) => {
      const { limit, cursor, ...filter } = query;
      if (query.cell !== undefined) await requireCell(database.read, query.cell);
      const before = cursor === undefined ? undefined : decodeCursor(cursor, "");
      const rows = await listMoves(database.read, { ...filter, before, limit: limit + 1 });
      const shown = page(rows, limit, ({ op }) => op.id);
      return { status: 200, body: { items: shown.items.map(toMove), next: shown.next } };
    },
  });

const getEndpoint = (context: ApiContext): Endpoint =>
  endpoint({
    method: "get",
    path: "/v1/moves/{id}",
    role: "viewer",
    tag,
    summary: "One move; with `after` and `waitMs`, as soon as its version is greater.",
    params: idParams,
    query: {
      waitMs: z.coerce.number().int().min(0).max(waitMsMax).default(0),
      after: z.coerce.number().int().min(0).optional(),
    },
    answers: { 200: moveSchema },
    serve: async ({ path, query, request }) => {
      const after = query.after ?? -1;
      const { waitMs } = query;
      const row = await waitFor(
        context,
        { channel: channels.op, topic: path.id, waitMs, signal: request.signal },
        async () => {
          const found = await findMove(context.database.read, path.id);
          if (found === undefined) throw moveUnknown(path.id);
          return found;
        },
        ({ op }) => op.version > after || (op.state !== "running" && op.state !== "pending"),
      );
      return { status: 200, body: toMove(row) };
    },
  });

const summaries: Readonly<Record<MoveAction, string>> = {
  verify: "Compare the rows in both cells once more.",
  switch: "Give the keys to the target, as soon as it is ready.",
  reverse: "Take a move back that soaks: a new move, which loses nothing written since.",
  complete: "End the soak: the way back is closed, and the source's rows are removed.",
  cancel: "End a move that has not switched; the source serves as before.",
  pause: "Begin no further step until it is resumed.",
  resume: "Go on with a move that was paused.",
};

const actionEndpoint = (context: ApiContext, action: MoveAction): Endpoint =>
  mutation(context, {
    method: "post",
    path: `/v1/moves/{id}/${action}`,
    role: "operator",
    tag,
    summary: summaries[action],
    params: idParams,
    body: moveActionSchema,
    answers: { 200: moveActedSchema, 202: moveActedSchema },
    action: `move.${action}`,
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => actOnMove(context, work, { id: path.id, action, asked: body }),
  });
