/** Recovery as operators see it, and the one decision that is theirs: to go on without a cell. */
import { asc } from "drizzle-orm";
import type { z } from "zod";
import { dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { recoverySchema, resolveRecoverySchema } from "../../contract/recovery-api.ts";
import { must } from "../../runtime/assert.ts";
import { onePlan } from "../core/ops/machine.ts";
import type { Reader } from "../store/database.ts";
import { freezeIn } from "../store/recovery-steps.ts";
import { lockFleet } from "../store/routing-change.ts";
import { fleet, recoveryCell } from "../store/schema.ts";
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
    summary: "Go on without a cell that does not return; its keys stay unavailable until it does.",
    body: resolveRecoverySchema,
    answers: { 200: recoverySchema.or(dryRunSchema) },
    action: "recovery.resolve",
    object: ({ body }) => body.cell,
    apply: (work, { body }) => resolve(work, body),
  }),
];

async function readRecovery(reader: Reader): Promise<z.output<typeof recoverySchema>> {
  const [row] = await reader.select().from(fleet);
  const head = must(row, "fleet row");
  const cells = await reader.select().from(recoveryCell).orderBy(asc(recoveryCell.cell));
  const awaited = cells.filter(({ state }) => state === "awaited");
  return recoverySchema.parse({
    mode: head.mode,
    step: head.recoveryStep,
    text: head.mode === "normal" ? "The fleet is in mode normal." : head.modeReason,
    cells,
    next_steps: awaited.map(
      ({ cell }) =>
        `Start ${cell}; if it never returns: POST /v1/recovery/resolve {"cell":"${cell}","action":"freeze"}`,
    ),
  });
}

async function resolve(work: Work, body: z.output<typeof resolveRecoverySchema>): Promise<Answer> {
  const { tx, nowMs, actor } = work;
  const head = await lockFleet(tx);
  const { cells } = await readRecovery(tx);
  const one = cells.find(({ cell }) => cell === body.cell);
  if (head.mode === "normal" || one === undefined || one.state === "frozen") {
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
  await freezeIn(tx, [body.cell], { actor, reason: body.reason }, nowMs);
  return { status: 200, body: await readRecovery(tx) };
}
