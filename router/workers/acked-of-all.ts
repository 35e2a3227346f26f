/**
 * Acknowledged writes of all workers: each remembers its own, and what a worker leaves behind is kept here.
 *
 * What must always be true: a list that nobody can give any more is told as lost, never left out in silence.
 */
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";
import { type AckedLimits, AckedWrites } from "../acked/acked-writes.ts";
import type { AckedSource } from "../table/open-table.ts";
import type { Member } from "./member.ts";
import type { AckedLists } from "./messages.ts";

export type AckedOfAll = AckedSource & {
  /** Of a worker that ended; undefined: it took them along. */
  readonly take: (left: AckedLists | undefined) => void;
  readonly follow: (table: TableState) => void;
};

export function createAckedOfAll(
  limits: AckedLimits,
  members: () => readonly Pick<Member, "acked">[],
): AckedOfAll {
  const kept = new AckedWrites(limits);
  let onLost: () => void = () => {};
  return {
    onLost: (hear) => {
      onLost = hear;
    },
    take: (left) => {
      if (left === undefined) onLost();
      for (const [cell, list] of left ?? []) kept.adopt(cell, list);
    },
    follow: (table) => kept.follow(table),
    listsOf: async (cell: CellId) => {
      const before = kept.list(cell);
      const lists = await Promise.all(
        members().map(async (member) => {
          const list = await member.acked(cell);
          // It may have ended meanwhile: asked again, what it left is here, or known to be lost.
          if (list === undefined) throw new Error("a worker did not say what it has acknowledged");
          return list;
        }),
      );
      return [before, ...lists];
    },
  };
}
