/**
 * What a move tells the databases of cells about its keys, as values. Pure.
 *
 * Always true: every command names op and attempt, by which databases refuse what comes too late.
 */
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import type { MoveTask, StoreLogin } from "../ports.ts";

export type ToldState = Extract<OwnershipState, "active" | "fenced" | "moved">;

/** For apply_ownership and its like; `ahead` is 1 for the target, whose epoch is the next one. */
export const changesOf = (task: MoveTask, state: ToldState, ahead: 0 | 1 = 0): string =>
  JSON.stringify(
    task.keys.map(({ key, epoch }) => ({
      ...{ key, state },
      ...{ epoch: epoch + ahead, op: task.op, attempt: task.attempt },
    })),
  );

/**
 * The line that travels behind all writes. `op` is that of the move whose stream carries it, for the
 * stream's filter; the name is this fence's alone, also where a move goes back on the stream of another.
 */
export const markerOf = (task: MoveTask): { readonly op: string; readonly name: string } => ({
  op: task.reverses ?? task.op,
  name: `fence/${task.op}/${task.attempt}`,
});

export const placeOf = ({ cell, store }: StoreLogin): string => `store ${store} of ${cell}`;

export const overtaken = (task: MoveTask, login: StoreLogin, said: string): CellError =>
  new CellError(
    "STATE_CONFLICT",
    `Attempt ${task.attempt} of ${task.op} has nothing to say any more in ${placeOf(login)}: ${said}. Nothing was changed there.`,
    { nextSteps: [`cellctl move show ${task.op}`] },
  );
