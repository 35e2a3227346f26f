/** All that the keeper of standbys decides from, in one consistent look. */
import { must } from "../../../runtime/assert.ts";
import type { CellView } from "../../core/fleet.ts";
import type { StandbyView } from "../../core/standby/standby-view.ts";
import type { Database } from "../database.ts";
import { readCells } from "../fleet-store.ts";
import { fleet } from "../schema.ts";
import {
  openFailovers,
  openMovesAt,
  type PartnerNumbers,
  readPartnerNumbers,
  readStandbys,
} from "./read.ts";

export type StandbyWorld = {
  readonly mode: "normal" | "recovering";
  readonly cells: readonly CellView[];
  readonly standbys: readonly StandbyView[];
  readonly failovers: Awaited<ReturnType<typeof openFailovers>>;
  /** By origin. */
  readonly partners: ReadonlyMap<string, PartnerNumbers>;
  /** Open moves, by annex. */
  readonly moves: ReadonlyMap<string, number>;
};

export const readStandbyWorld = (database: Database): Promise<StandbyWorld> =>
  database.snapshot(async (tx) => {
    const [head] = await tx.select({ mode: fleet.mode }).from(fleet);
    const standbys = await readStandbys(tx);
    const adopted = standbys.filter(({ state }) => state === "adopted");
    return {
      mode: must(head, "fleet row").mode,
      cells: await readCells(tx),
      standbys,
      failovers: await openFailovers(tx),
      partners: await readPartnerNumbers(tx),
      moves: await openMovesAt(
        tx,
        adopted.map(({ annex }) => annex),
      ),
    };
  });
