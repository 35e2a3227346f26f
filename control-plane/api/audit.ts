/** The audit log: read and verified. */
import { z } from "zod";
import { auditEntrySchema, auditVerdictSchema, list } from "../../contract/control-api.ts";
import { listAudit, verifyAudit } from "../store/audit.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { decodeNumberCursor, page, pageQuery } from "./paging.ts";

export function auditEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/audit",
      role: "viewer",
      tag: "audit",
      summary: "List entries, newest first.",
      query: {
        ...pageQuery,
        actor: z.string().max(200).optional(),
        object: z.string().max(300).optional(),
        action: z.string().max(60).optional(),
        since: z.iso.datetime({ offset: true }).optional(),
      },
      answers: { 200: list(auditEntrySchema) },
      serve: async ({ query }) => {
        const { limit, cursor, since, ...filter } = query;
        const before = decodeNumberCursor(cursor, Number.MAX_SAFE_INTEGER);
        const sinceMs = since === undefined ? undefined : Date.parse(since);
        const rows = await listAudit(database.read, {
          ...filter,
          before,
          sinceMs,
          limit: limit + 1,
        });
        const shown = page(rows, limit, ({ id }) => String(id));
        const items = shown.items.map((row) => ({ ...row, at: row.at.toISOString() }));
        return { status: 200, body: { items, next: shown.next } };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/audit/verify",
      role: "viewer",
      tag: "audit",
      summary: "Check the chain of hashes from its first entry.",
      answers: { 200: auditVerdictSchema },
      serve: async () => ({ status: 200, body: await verifyAudit(database) }),
    }),
  ];
}
