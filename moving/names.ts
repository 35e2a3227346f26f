/**
 * Names of what a move makes in PostgreSQL: publication, slot and subscription of one stream bear the same.
 *
 * Slots are the server's, not the database's, and two stores may share a server: so the store's index in
 * the task is part of the name. A move that takes another one back runs on that one's reverse stream,
 * under the name it has. Pure.
 */
import type { OpId } from "../contract/ids.ts";
import type { MoveObject, MoveTask } from "./ports.ts";

const opPrefix = "op_";

/** Publication and slot at the source, subscription at the target. */
export const forwardName = (task: Pick<MoveTask, "op" | "reverses">, store: number): string =>
  task.reverses === null ? nameOf("mv", task.op, store) : nameOf("rv", task.reverses, store);

/** Publication and slot at the target, subscription at the source. */
export const backName = (task: Pick<MoveTask, "op">, store: number): string =>
  nameOf("rv", task.op, store);

/** `application_name` of every connection that copies; below 64 bytes, or PostgreSQL would cut it. */
export const copierName = (task: Pick<MoveTask, "op">, store: number): string =>
  `${nameOf("mv", task.op, store)} copy`;

const nameOf = (way: "mv" | "rv", op: OpId, store: number): string =>
  `${way}_${op.slice(opPrefix.length)}_${store}`;

/** As a pattern of PostgreSQL's (`~`). */
export const streamNamePattern = "^(mv|rv)_[a-z0-9]{10,40}_[0-9]+$";

/** Everything that a move may make anywhere in cells' databases. */
export function objectsOf(task: MoveTask): MoveObject[] {
  return task.stores.flatMap((store, index) => {
    const at = (side: "source" | "target", kind: MoveObject["kind"], name: string): MoveObject => ({
      cell: task[side],
      store: store.name,
      kind,
      name,
    });
    const forward = forwardName(task, index);
    const back = backName(task, index);
    return [
      at("source", "publication", forward),
      at("source", "slot", forward),
      at("target", "subscription", forward),
      at("target", "publication", back),
      at("target", "slot", back),
      at("source", "subscription", back),
      ...task.keys.flatMap(({ key }) => [
        at("target", "ownership", key),
        at("target", "rows", key),
        at("source", "gate", key),
      ]),
    ];
  });
}
