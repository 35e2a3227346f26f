/** The fleet at a glance, and its routers. */
import { z } from "zod";
import { list, routerSchema, statusSchema } from "../../contract/control-api.ts";
import { release } from "../../contract/release.ts";
import { must } from "../../runtime/assert.ts";
import { routerLiveMs, wholeCells } from "../core/fleet.ts";
import { databaseNowMs, type Tx } from "../store/database.ts";
import { failoversByCell } from "../store/failover/view.ts";
import { readCells } from "../store/fleet-store.ts";
import { readSeat } from "../store/leader.ts";
import { countOps } from "../store/ops.ts";
import { fleet, router } from "../store/schema.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";

/** `failed` counts the operations of the last day. */
const failedWithinMs = 24 * 3_600_000;
export function statusEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/status",
      role: "viewer",
      tag: "fleet",
      summary: "The fleet at a glance.",
      answers: { 200: statusSchema },
      serve: async () => ({
        status: 200,
        body: await database.snapshot((tx) => readStatus(context, tx)),
      }),
    }),
    endpoint({
      method: "get",
      path: "/v1/routers",
      role: "viewer",
      tag: "fleet",
      summary: "Routers, and the revision each serves.",
      query: pageQuery,
      answers: { 200: list(routerSchema) },
      serve: async ({ query }) => {
        const after = decodeCursor(query.cursor, "");
        const rows = (await database.snapshot(readRouterList))
          .filter(({ id }) => id > after)
          .sort((a, b) => (a.id < b.id ? -1 : 1));
        return { status: 200, body: page(rows, query.limit, ({ id }) => id) };
      },
    }),
  ];
}

async function readStatus(context: ApiContext, tx: Tx) {
  const [row] = await tx.select().from(fleet);
  const head = must(row, "fleet row");
  const nowMs = await databaseNowMs(tx);
  const all = await readCells(tx);
  const cells = wholeCells(all).filter(({ state }) => state !== "retired");
  const routers = await readRouterList(tx);
  const live = routers.filter((one) => one.live);
  const seat = await readSeat(tx);
  return {
    fleet: head.id,
    mode: head.mode,
    modeReason: head.modeReason,
    revision: head.revision,
    leader:
      seat === undefined || !seat.live
        ? null
        : {
            holder: seat.holder,
            term: seat.term,
            self: seat.holder === context.settings.instance,
          },
    cells: {
      total: cells.length,
      healthy: cells.filter(({ health }) => health === "healthy").length,
      down: cells.filter(({ health }) => health === "down").length,
    },
    // Reserved in the transaction that places each of them; counting a million rows would take a while.
    tenants: all.reduce((sum, { usage }) => sum + usage.tenants, 0),
    routers: {
      live: live.length,
      inSync: live.filter(({ behind }) => behind === 0).length,
      wouldRefuse: wouldRefuseNow(live),
    },
    ops: await countOps(tx, new Date(nowMs - failedWithinMs)),
    failovers: [...(await failoversByCell(tx))].map(([cell, one]) => ({ cell, ...one })),
    release,
    audit: { entries: head.auditEntries, head: head.auditHead },
  };
}

const countsSchema = z.record(z.string(), z.number()).catch({});

/** Of routers that are gone nothing is said: what they counted ended with them. */
const wouldRefuseNow = (
  live: ReadonlyArray<{ readonly wouldRefuse: Readonly<Record<string, number>> }>,
): number =>
  live
    .flatMap(({ wouldRefuse }) => Object.values(wouldRefuse))
    .reduce((sum, count) => sum + count, 0);

async function readRouterList(tx: Tx) {
  const nowMs = await databaseNowMs(tx);
  const [head] = await tx.select({ revision: fleet.revision }).from(fleet);
  const rows = await tx.select().from(router);
  return rows.map((row) => {
    const seenMs = Math.max(0, nowMs - row.seenAt.getTime());
    return {
      id: row.id,
      instance: row.instance,
      admin: row.admin,
      revision: row.revision,
      behind: Math.max(0, (head?.revision ?? 0) - row.revision),
      live: seenMs <= routerLiveMs,
      seenMs,
      release: row.release,
      wouldRefuse: countsSchema.parse(row.wouldRefuse),
    };
  });
}
