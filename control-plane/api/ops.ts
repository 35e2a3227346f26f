/** Operations and events: listed, read, and watched by long poll. */
import { z } from "zod";
import { list, opSchema, opStates } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { eventSchema } from "../../contract/event-api.ts";
import type { EventRow } from "../store/events.ts";
import { listEvents, recentEvents } from "../store/events.ts";
import { channels } from "../store/notify.ts";
import { findOp, listOps, type OpRow, toOp } from "../store/ops.ts";
import { type ApiContext, waitMsMax } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { decodeCursor, decodeNumberCursor, page, pageQuery } from "./paging.ts";
import { waitFor } from "./wait-for.ts";

const waitQuery = { waitMs: z.coerce.number().int().min(0).max(waitMsMax).default(0) };

export function opEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/ops",
      role: "viewer",
      tag: "operations",
      summary: "List operations, newest first.",
      query: {
        ...pageQuery,
        state: z.enum(opStates).optional(),
        kind: z.string().max(60).optional(),
        object: z.string().max(300).optional(),
      },
      answers: { 200: list(opSchema) },
      serve: async ({ query }) => {
        const { limit, cursor, ...filter } = query;
        const before = cursor === undefined ? undefined : decodeCursor(cursor, "");
        const rows = await listOps(database.read, { ...filter, before, limit: limit + 1 });
        const shown = page(rows, limit, ({ id }) => id);
        return { status: 200, body: { items: shown.items.map(toOp), next: shown.next } };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/ops/{id}",
      role: "viewer",
      tag: "operations",
      summary: "One operation; with `after` and `waitMs`, as soon as its version is greater.",
      // Any text: an id that cannot be one is as unknown as one that is not.
      params: { id: z.string().min(1).max(64) },
      query: { ...waitQuery, after: z.coerce.number().int().min(0).optional() },
      answers: { 200: opSchema },
      serve: async ({ path, query, request }) => {
        const after = query.after ?? -1;
        const row = await waitFor(
          context,
          { channel: channels.op, topic: path.id, waitMs: query.waitMs, signal: request.signal },
          () => requireOp(context, path.id),
          (op) => op.version > after || (op.state !== "running" && op.state !== "pending"),
        );
        return { status: 200, body: toOp(row) };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/events",
      role: "viewer",
      tag: "operations",
      summary: "The newest events; with `after`, those that follow, waiting up to `waitMs`.",
      query: {
        ...pageQuery,
        ...waitQuery,
        after: z.coerce.number().int().min(0).optional(),
      },
      answers: { 200: list(eventSchema) },
      serve: async ({ query, request }) => {
        const { limit, cursor, after, waitMs } = query;
        if (after === undefined && cursor === undefined) {
          const rows = await recentEvents(database.read, limit);
          return { status: 200, body: { items: rows.map(toEvent), next: null } };
        }
        const from = after ?? decodeNumberCursor(cursor, 0);
        const rows = await waitFor(
          context,
          { channel: channels.event, topic: "", waitMs, signal: request.signal },
          () => listEvents(database.read, from, limit + 1),
          (found) => found.length > 0,
        );
        const shown = page(rows, limit, ({ id }) => String(id));
        return { status: 200, body: { items: shown.items.map(toEvent), next: shown.next } };
      },
    }),
  ];
}

async function requireOp(context: ApiContext, id: string): Promise<OpRow> {
  const row = await findOp(context.database.read, id);
  if (row !== undefined) return row;
  throw new CellError("OP_UNKNOWN", `There is no operation ${id}.`, {
    nextSteps: ["cellctl op ls"],
  });
}

const toEvent = (row: EventRow) => ({ ...row, at: row.at.toISOString() });
