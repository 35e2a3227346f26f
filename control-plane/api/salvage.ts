/**
 * What is asked for when a cell that was failed over has returned: read what only it has, decide about it,
 * wipe it, bring its tenants home; and the report of what the failover lost. Recorded here; carried out by
 * work/failover/salvage.ts.
 */
import { z } from "zod";
import { acceptedSchema, dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { rpoReportSchema } from "../../contract/failover-api.ts";
import { cellIdSchema, opIdSchema } from "../../contract/ids.ts";
import {
  adoptStrandedSchema,
  decideSalvageSchema,
  homecomingSchema,
  salvagedRowSchema,
  salvageSchema,
  startSalvageSchema,
  wipeCellSchema,
} from "../../contract/salvage-api.ts";
import { readReport } from "../store/failover/report.ts";
import { lastSalvage, pageOfRows, readSalvage, toSalvagedRow } from "../store/failover/salvage.ts";
import { readHomecoming } from "../store/failover/salvage-home.ts";
import { findOp } from "../store/ops.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { mutation } from "./mutation.ts";
import { decodeNumberCursor, page, pageQuery } from "./paging.ts";
import { adoptStranded } from "./salvage-adopt.ts";
import { decideSalvage, startSalvage } from "./salvage-decide.ts";
import { wipeCell } from "./salvage-wipe.ts";

const params = { id: cellIdSchema };
const ofTenant = z.string().max(128).optional();

export const salvageEndpoints = (context: ApiContext): readonly Endpoint[] => [
  ...reading(context),
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/salvage",
    role: "operator",
    tag: "cells",
    summary: "Read what a cell that was failed over and returned has, and nobody else.",
    params,
    body: startSalvageSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "cell.salvage",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => startSalvage(context, work, path.id, body.failover),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/salvage/decide",
    role: "operator",
    tag: "cells",
    summary:
      "Apply salvaged rows to their tenants' homes, or note that they were exported or are given up.",
    params,
    body: decideSalvageSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "cell.salvage.decide",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => decideSalvage(context, work, path.id, body),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/salvage/adopt",
    role: "operator",
    tag: "cells",
    summary: "Let keys go on from the only copy there is, a returned cell's: into whole cells.",
    params,
    body: adoptStrandedSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "cell.salvage.adopt",
    object: ({ path }) => path.id,
    apply: (work, { path }) => adoptStranded(context, work, path.id),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/wipe",
    role: "admin",
    tag: "cells",
    summary: "Destroy the data of a cell that was failed over, and let it back, empty.",
    params,
    body: wipeCellSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: "cell.wipe",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => wipeCell(context, work, path.id, body.discardUnsalvaged),
  }),
];

const reading = ({ database }: ApiContext): readonly Endpoint[] => [
  endpoint({
    method: "get",
    path: "/v1/failovers/{id}/report",
    role: "viewer",
    tag: "failovers",
    summary: "What a failover lost, as it was found when it was verified",
    params: { id: opIdSchema },
    answers: { 200: rpoReportSchema },
    serve: async ({ path }) => {
      const report = await readReport(database.read, path.id);
      if (report !== null) return { status: 200, body: report };
      throw new CellError(
        "NOT_FOUND",
        `${path.id} has no report yet: it is made when tenants are served again.`,
        {
          nextSteps: [`cellctl failover status ${path.id}`],
        },
      );
    },
  }),
  endpoint({
    method: "get",
    path: "/v1/cells/{id}/salvage",
    role: "viewer",
    tag: "cells",
    summary: "The last salvage of a cell, tenant by tenant",
    params,
    query: { tenant: ofTenant },
    answers: { 200: salvageSchema },
    serve: async ({ path, query }) => {
      const id = await requireSalvage(database.read, path.id);
      return { status: 200, body: await readSalvage(database.read, id, query.tenant) };
    },
  }),
  endpoint({
    method: "get",
    path: "/v1/cells/{id}/salvage/rows",
    // Rows of tenants: whoever may look at the fleet may not look at these.
    role: "operator",
    tag: "cells",
    summary: "Rows that only the returned cell has, in the order of their commits",
    params,
    query: { ...pageQuery, tenant: ofTenant },
    answers: {
      200: z.object({ items: z.array(salvagedRowSchema), next: z.string().nullable() }),
    },
    serve: async ({ path, query }) => {
      const id = await requireSalvage(database.read, path.id);
      const after = decodeNumberCursor(query.cursor, 0);
      const { limit, tenant } = query;
      const rows = await pageOfRows(database.read, id, { after, limit: limit + 1, tenant });
      const { items, next } = page(rows, limit, (row) => String(row.id));
      return { status: 200, body: { items: items.map(toSalvagedRow), next } };
    },
  }),
  endpoint({
    method: "get",
    path: "/v1/cells/{id}/homecoming",
    role: "viewer",
    tag: "cells",
    summary: "Tenants that failovers took from a cell and that are elsewhere now",
    params,
    answers: { 200: homecomingSchema },
    serve: async ({ path }) => {
      await requireCell(database.read, path.id);
      return { status: 200, body: await readHomecoming(database.read, path.id) };
    },
  }),
];

/** Throws CELL_UNKNOWN, NOT_FOUND. */
async function requireSalvage(
  reader: ApiContext["database"]["read"],
  cell: string,
): Promise<string> {
  await requireCell(reader, cell);
  const found = await lastSalvage(reader, cell);
  const read = found === undefined ? undefined : await findOp(reader, found.op);
  if (read?.state === "failed") {
    throw new CellError(
      "SALVAGE_UNFIT",
      `The last salvage of ${cell} failed, and nothing was read: ${read.headline}`,
      { nextSteps: [`cellctl cell start ${cell}`, `cellctl cell salvage ${cell}`] },
    );
  }
  if (found !== undefined) return found.op;
  throw new CellError("NOT_FOUND", `Nothing of ${cell} was salvaged.`, {
    nextSteps: [`cellctl cell salvage ${cell}`],
  });
}
