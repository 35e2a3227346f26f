/**
 * Recovery as operators see it, and the decisions that are theirs: to go on without a lost cell, and to
 * let a quarantined one back.
 */
import { and, asc, eq } from "drizzle-orm";
import type { z } from "zod";
import { dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import {
  readmitCellSchema,
  readmittedSchema,
  recoverySchema,
  resolveRecoverySchema,
} from "../../contract/recovery-api.ts";
import { must } from "../../runtime/assert.ts";
import type { CellView } from "../core/fleet.ts";
import { countsAsManual } from "../core/lease-mode.ts";
import { onePlan } from "../core/ops/machine.ts";
import { databaseNowMs, type Reader } from "../store/database.ts";
import { lastFailoverOf } from "../store/failover/report.ts";
import { readCell } from "../store/fleet-store.ts";
import { readmitCell } from "../store/lease.ts";
import { freezeIn, frozenOf, giveUpIn } from "../store/recovery-steps.ts";
import { lockFleet, lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable, fleet } from "../store/schema.ts";
import { recoveryCell } from "../store/schema-recovery.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

export const recoveryEndpoints = (context: ApiContext): readonly Endpoint[] => [
  endpoint({
    method: "get",
    path: "/v1/recovery",
    role: "viewer",
    tag: "fleet",
    summary: "Recovery after a restore: what is waited for.",
    answers: { 200: recoverySchema },
    serve: async () => ({ status: 200, body: await context.database.snapshot(readRecovery) }),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/recovery/resolve",
    role: "admin",
    tag: "fleet",
    summary:
      "Go on without a cell that does not return; its keys stay unavailable until it does, or it is given up.",
    body: resolveRecoverySchema,
    answers: { 200: recoverySchema.or(dryRunSchema) },
    action: "recovery.resolve",
    object: ({ body }) => body.cell,
    apply: (work, { body }) => resolve(work, body),
  }),
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/readmit",
    role: "admin",
    tag: "cells",
    summary: "Let a quarantined cell back, cordoned, with its database as it is.",
    params: { id: cellIdSchema },
    body: readmitCellSchema,
    answers: { 200: readmittedSchema.or(dryRunSchema) },
    action: "cell.readmit",
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => readmit(work, path.id, body.otherCopiesOff === true),
  }),
];

/** What it then knows less than its last owner did is told to it anew; lost rows stay lost. */
async function readmit(work: Work, id: string, otherCopiesOff: boolean): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const found = await readCell(tx, id);
  if (found === undefined) throw new CellError("CELL_UNKNOWN", `There is no cell ${id}.`);
  if (found.state !== "quarantined") {
    throw new CellError("STATE_CONFLICT", `${id} is ${found.state}, not quarantined.`, {
      nextSteps: [`cellctl cell get ${id}`],
    });
  }
  await requireNotFailedOver(work, found);
  const leftMs = found.leaseUntilMs - (await databaseNowMs(tx));
  if (leftMs > 0) {
    // Another incarnation of this cell may hold it: two would serve at the same time (corrections A14).
    throw new CellError(
      "SAFETY_RULE",
      `The last lease of ${id} may be in use by another copy of its database for ${Math.ceil(leftMs / 1000)} s more.`,
      {
        nextSteps: [
          `cellctl cell readmit ${id} --reason "…"   (make sure that no other copy runs, and repeat when the lease has ended)`,
        ],
      },
    );
  }
  if (countsAsManual(found.leaseMode) && !otherCopiesOff) {
    throw new CellError(
      "SAFETY_RULE",
      `${id} has manual leases: another copy of its database may serve for as long as it runs.`,
      {
        nextSteps: [
          `cellctl cell readmit ${id} --other-copies-off --reason "…"   (power off every other copy first)`,
        ],
      },
    );
  }
  if (work.dryRun) {
    const text = `let ${id} back, cordoned, with its database as it is`;
    const plan = onePlan("cell.readmit", [{ action: "readmit", object: id, text }]);
    return { status: 200, body: { plan, next_steps: [] } };
  }
  await work.record({ state: found.state, why: found.healthReason }, { state: "cordoned" });
  await readmitCell(tx, id);
  const body = { id, state: "cordoned", next_steps: [`cellctl cell uncordon ${id}`] };
  return { status: 200, body };
}

/** Its tenants have other owners, and its database still says that they are its own. */
async function requireNotFailedOver({ tx }: Work, found: CellView): Promise<void> {
  if (!found.revoking) return;
  const failover = await lastFailoverOf(tx, found.id);
  throw new CellError(
    "STATE_CONFLICT",
    `${found.id} was failed over${failover === undefined ? "" : ` (${failover.op})`}: its tenants are served elsewhere, and it would be a second owner of them.`,
    {
      nextSteps: [
        `cellctl cell salvage ${found.id}`,
        `cellctl cell wipe ${found.id}`,
        `cellctl failover restore ${found.id}`,
      ],
    },
  );
}

async function readRecovery(reader: Reader): Promise<z.output<typeof recoverySchema>> {
  const [row] = await reader.select().from(fleet);
  const head = must(row, "fleet row");
  const rows = await reader
    .select({ one: recoveryCell, host: cellTable.annexHost })
    .from(recoveryCell)
    .leftJoin(cellTable, eq(cellTable.id, recoveryCell.cell))
    .orderBy(asc(recoveryCell.cell));
  const steps = rows.flatMap(({ one, host }) => wayOf(host ?? one.cell, one.state, head.mode));
  return recoverySchema.parse({
    mode: head.mode,
    step: head.recoveryStep,
    text: head.mode === "normal" ? "The fleet is in mode normal." : head.modeReason,
    cells: rows.map(({ one }) => one),
    next_steps: [...new Set(steps)],
  });
}

/** Of one that is silent: bring it back, or go on without it. */
function wayOf(cell: string, state: string, mode: string): string[] {
  const start = `cellctl cell start ${cell}`;
  if (state === "awaited") {
    return [start, `cellctl recovery freeze ${cell} --reason "…"   (if it does not return soon)`];
  }
  return state === "frozen" && mode === "normal"
    ? [start, `cellctl recovery give-up ${cell} --reason "…"   (if it is lost for good)`]
    : [];
}

async function resolve(work: Work, body: z.output<typeof resolveRecoverySchema>): Promise<Answer> {
  const { tx, nowMs, actor } = work;
  if (body.action === "give-up") return giveUp(work, body);
  const head = await lockFleet(tx);
  const { cells } = await readRecovery(tx);
  const one = cells.find(({ cell }) => cell === body.cell);
  if (head.mode === "normal" || one === undefined || isOut(one.state)) {
    throw new CellError("STATE_CONFLICT", `Recovery does not wait for ${body.cell}.`, {
      nextSteps: ["cellctl status"],
    });
  }
  if (work.dryRun) {
    const text = `go on without ${body.cell}; its keys stay unavailable until it reports`;
    const plan = onePlan("recovery.resolve", [{ action: "freeze", object: body.cell, text }]);
    return { status: 200, body: { plan, next_steps: [] } };
  }
  await work.record(one, { ...one, state: "frozen" });
  // What stands in it is as silent.
  const hosted = await tx
    .select({ id: cellTable.id })
    .from(cellTable)
    .innerJoin(recoveryCell, eq(recoveryCell.cell, cellTable.id))
    .where(and(eq(cellTable.annexHost, body.cell), eq(recoveryCell.state, "awaited")));
  const silent = [body.cell, ...hosted.map(({ id }) => id)];
  await freezeIn(tx, silent, { actor, reason: body.reason }, nowMs);
  return { status: 200, body: await readRecovery(tx) };
}

const isOut = (state: string): boolean => state === "frozen" || state === "lost";

async function giveUp(work: Work, body: z.output<typeof resolveRecoverySchema>): Promise<Answer> {
  const { tx, nowMs, actor, reason } = work;
  await lockFleet(tx);
  const cells = await frozenOf(tx, body.cell);
  if (cells.length === 0) {
    throw new CellError("STATE_CONFLICT", `Recovery has not gone on without ${body.cell}.`, {
      nextSteps: ["cellctl recovery show"],
    });
  }
  if (work.dryRun) {
    const text = `give ${body.cell} up: keys that it may have taken over since the backup are their former owners' again, without what it acknowledged`;
    const plan = onePlan("recovery.resolve", [{ action: "give-up", object: body.cell, text }]);
    return { status: 200, body: { plan, next_steps: [] } };
  }
  await work.record({ cells, state: "frozen" }, { cells, state: "lost" });
  await giveUpIn(tx, body.cell, cells, { actor, reason }, nowMs);
  return { status: 200, body: await readRecovery(tx) };
}
