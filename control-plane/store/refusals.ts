/**
 * What a cell refused to apply. Mostly it stands as wanted already; where an old command is in the
 * way the placement gets a new epoch; and what this database never said is evidence of a restore.
 */
import { sql } from "drizzle-orm";
import type { AgentSyncRequest, OwnershipState } from "../../contract/cell-protocol.ts";
import type { PlacementState } from "../../contract/control-api.ts";
import { judgeRefusal, ownershipOf, type Refusal } from "../core/ownership-view.ts";
import type { Database, Tx } from "./database.ts";
import { recordEvents } from "./events.ts";
import { inMotion, type KeyInMotion } from "./moves/ask.ts";
import { changeRouting, lockFleet } from "./routing-change.ts";

type Row = {
  readonly key: string;
  readonly own: PlacementState | null;
  readonly lost: OwnershipState | null;
  readonly deleted: boolean;
  readonly epoch: number;
};

/** The refusal that this database cannot explain, if there is one. */
export async function settleRefusals(
  database: Database,
  said: Pick<AgentSyncRequest, "cell" | "refused">,
): Promise<Refusal | undefined> {
  if (said.refused.length === 0) return undefined;
  return database.transaction(async (tx) => {
    await lockFleet(tx);
    const wanted = await readWanted(tx, said);
    // A move speaks to the cell by itself, and its words are newer than ours.
    const keys = said.refused.map(({ key }) => key);
    const moving = new Map((await inMotion(tx, keys)).map((one) => [one.key, one]));
    const raised: string[] = [];
    for (const refusal of said.refused) {
      const now = wanted.get(refusal.key);
      const verdict = now === undefined ? "settled" : judgeRefusal(now, refusal);
      const move = moving.get(refusal.key);
      if (verdict === "restored" && !isWordOf(move, said.cell, refusal)) return refusal;
      if (verdict === "raise" && move === undefined) raised.push(refusal.key);
    }
    await raise(tx, said.cell, raised);
    return undefined;
  });
}

/** As the target of a move that is under way it has heard of the next epoch, and nobody else has. */
const isWordOf = (move: KeyInMotion | undefined, cell: string, { epoch }: Refusal): boolean =>
  move !== undefined && (cell === move.target || cell === move.source) && epoch <= move.epoch + 1;

async function readWanted(
  tx: Tx,
  said: Pick<AgentSyncRequest, "cell" | "refused">,
): Promise<ReadonlyMap<string, { readonly state: OwnershipState; readonly epoch: number }>> {
  const keys = sql.param(said.refused.map(({ key }) => key));
  const { rows } = await tx.execute<Row>(sql`
    select key, null as own, state as lost, false as deleted, epoch::float8 as epoch
      from cellfleet_control.disowned where cell = ${said.cell} and key = any (${keys}::text[])
    union all
    select key, state, null, deleted, epoch::float8
      from cellfleet_control.placement where cell = ${said.cell} and key = any (${keys}::text[])`);
  // What the cell owns stands last, and counts.
  return new Map(
    rows.map(({ key, own, lost, deleted, epoch }) => [
      key,
      { state: own === null ? (lost ?? "moved") : ownershipOf({ state: own, deleted }), epoch },
    ]),
  );
}

async function raise(tx: Tx, cell: string, keys: readonly string[]): Promise<void> {
  if (keys.length === 0) return;
  const revision = await changeRouting(tx, { config: false });
  await tx.execute(sql`
    update cellfleet_control.placement set epoch = epoch + 1, revision = ${revision},
           -- Not served under the new epoch before the cell has applied it.
           state = case when state = 'active' then 'pending' else state end
     where cell = ${cell} and key = any (${sql.param(keys)}::text[])`);
  await recordEvents(tx, [
    {
      kind: "placement.raised",
      object: cell,
      text: `${cell} refused ${keys.length} keys because of an older command; they got a new epoch.`,
    },
  ]);
}
