/**
 * Looking into the cells before anything is decided, outside of any transaction: some groups at once,
 * for a bounded time. What could not be looked at in that time is said to be so; the executor looks
 * again before it touches anything.
 */
import { CellError } from "../../contract/errors.ts";
import type { MoveOptions, MovePlan } from "../../contract/move-api.ts";
import { movePlanSchema } from "../../contract/move-api.ts";
import { checkOf, planSteps } from "../core/move/move-plan.ts";
import { cellStores } from "../store/fleet-store.ts";
import type { ApiContext, LookAtMove, MoveLook } from "./context.ts";
import type { MoveGroup } from "./moves-select.ts";

const looksAtOnce = 4;
/** Shorter than a client waits for an answer. */
const lookMsMax = 10_000;

export type Looks = ReadonlyMap<string, MoveLook>;

/** The same keys, at the same epochs, from and to the same cells. */
const groupName = ({ source, target, rows }: MoveGroup): string =>
  [source.id, target.id, ...rows.map(({ key, epoch }) => `${key}@${epoch}`)].join("\n");

export const lookOf = (looks: Looks, group: MoveGroup): MoveLook | undefined =>
  looks.get(groupName(group));

export function requireMover({ lookAtMove }: ApiContext): LookAtMove {
  if (lookAtMove !== undefined) return lookAtMove;
  throw new CellError("INTERNAL", "This control plane runs no moves.");
}

export async function lookAtAll(
  context: ApiContext,
  groups: readonly MoveGroup[],
  request: AbortSignal,
): Promise<Looks> {
  const lookAtMove = requireMover(context);
  const late = new AbortController();
  const timer = context.clock.after(lookMsMax, () => late.abort());
  const signal = AbortSignal.any([request, late.signal]);
  const looks = new Map<string, MoveLook>();
  const waiting = [...groups];
  async function work(): Promise<void> {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      looks.set(groupName(group), (await look(group)) ?? (await unseen(context, group)));
    }
  }
  async function look(group: MoveGroup): Promise<MoveLook | undefined> {
    if (signal.aborted) return undefined;
    const { keyspace, source, target, rows } = group;
    const keys = rows.map(({ key }) => key);
    try {
      return await lookAtMove({ keyspace, keys, source: source.id, target: target.id }, signal);
    } catch (error) {
      if (signal.aborted) return undefined;
      if (error instanceof CellError) return refused(context, group, error);
      throw error;
    }
  }
  try {
    await Promise.all(Array.from({ length: looksAtOnce }, work));
  } finally {
    timer.cancel();
  }
  return looks;
}

const nothingSeen = { tables: [], estimate: { rows: 0, bytes: 0, copyMs: 0, pauseMs: 0 } };

const storesOf = async ({ database }: ApiContext, { source }: MoveGroup): Promise<string[]> =>
  Object.entries(await cellStores(database.read, source.id))
    .filter(([, { kind, ignore }]) => kind !== "external" && ignore !== true)
    .map(([name]) => name);

async function unseen(context: ApiContext, group: MoveGroup): Promise<MoveLook> {
  const text = `not looked at within ${lookMsMax / 1000} s; it is before anything is touched`;
  const checks = [
    checkOf("looked", "", "warning", text, "plan fewer moves at once to see them all"),
  ];
  return { ...nothingSeen, stores: await storesOf(context, group), checks };
}

async function refused(
  context: ApiContext,
  group: MoveGroup,
  { message, nextSteps }: CellError,
): Promise<MoveLook> {
  const checks = [checkOf("looked", "", "refused", message, nextSteps[0] ?? "")];
  return { ...nothingSeen, stores: await storesOf(context, group), checks };
}

export const toPlan = (group: MoveGroup, look: MoveLook, options: MoveOptions): MovePlan => {
  const { keyspace, source, target, rows, findings } = group;
  return movePlanSchema.parse({
    ...{ keyspace, source: source.id, target: target.id },
    keys: rows.map(({ key }) => key),
    stores: look.stores,
    tables: look.tables,
    checks: [...findings.map(({ check }) => check), ...look.checks],
    estimate: look.estimate,
    steps: planSteps({ source: source.id, target: target.id, options, isReversal: false }),
  });
};
