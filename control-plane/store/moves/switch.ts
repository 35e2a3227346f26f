/**
 * What the switch writes about placements. Each is part of the transaction that enters a step.
 *
 * What must always be true: a route that is published names an active owner, or says `hold`; an epoch
 * grows when the owner changes and never otherwise; the keys change hands all together or not at all.
 */
import { and, eq, inArray, sql } from "drizzle-orm";
import type { PlacementState } from "../../../contract/control-api.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { Abandoned } from "../abandoned.ts";
import type { Tx } from "../database.ts";
import { changeRouting } from "../routing-change.ts";
import { placement } from "../schema.ts";
import { move } from "../schema-moves.ts";
import { handRoomOver } from "./room.ts";

/** Routers hold requests of the keys from this revision on. */
export const holdKeys = (tx: Tx, view: MoveView): Promise<number> =>
  setState(tx, view, { from: ["active", "hold"], to: "hold" });

/** The source is served again, at the epoch it had. */
export const releaseToSource = (tx: Tx, view: MoveView): Promise<number> =>
  setState(tx, view, { from: ["active", "hold"], to: "active" });

async function setState(
  tx: Tx,
  view: MoveView,
  how: { readonly from: PlacementState[]; readonly to: PlacementState },
): Promise<number> {
  const revision = await changeRouting(tx, { config: false });
  for (const { key, epoch } of view.keys) {
    const rows = await tx
      .update(placement)
      .set({ state: how.to, revision })
      .where(
        and(
          eq(placement.key, key),
          eq(placement.cell, view.source),
          eq(placement.epoch, epoch),
          eq(placement.deleted, false),
          inArray(placement.state, how.from),
        ),
      )
      .returning({ key: placement.key });
    if (rows.length === 0) throw new Abandoned("raced");
  }
  return revision;
}

/**
 * Point of no return: the target owns the keys at the next epoch. Routers hold on until it has said that
 * it is active. A cancellation that was asked for until now is heard.
 */
export async function commitKeys(tx: Tx, view: MoveView, attempt: number): Promise<void> {
  // For routers nothing changes until the release: one table less between them and it.
  const revision = await changeRouting(tx, { config: false, quiet: true });
  const [asked] = await tx
    .select({ wish: move.wish })
    .from(move)
    .where(eq(move.op, view.id))
    .for("update");
  if (asked?.wish === "cancel") throw new Abandoned("raced");
  for (const { key, epoch } of view.keys) {
    const rows = await tx
      .update(placement)
      .set({ cell: view.target, epoch: epoch + 1, op: view.id, attempt, revision })
      .where(
        and(
          eq(placement.key, key),
          eq(placement.cell, view.source),
          eq(placement.epoch, epoch),
          eq(placement.state, "hold"),
          eq(placement.deleted, false),
        ),
      )
      .returning({ key: placement.key });
    if (rows.length === 0) throw new Abandoned("raced");
    await tx.execute(sql`
      insert into cellfleet_control.disowned as d (cell, key, state, epoch, op, attempt, revision)
      values (${view.source}, ${key}, 'moved', ${epoch}, ${view.id}, ${attempt}, ${revision})
      on conflict (cell, key) do update set state = 'moved', epoch = excluded.epoch,
        op = excluded.op, attempt = excluded.attempt, revision = excluded.revision`);
  }
  await handRoomOver(tx, view.id);
}

/** The target has said that it is active: routers may follow. */
export async function releaseToTarget(tx: Tx, view: MoveView): Promise<number> {
  const revision = await changeRouting(tx, { config: false });
  await tx
    .update(placement)
    .set({ state: "active", revision })
    .where(
      and(
        inArray(
          placement.key,
          view.keys.map(({ key }) => key),
        ),
        eq(placement.cell, view.target),
        eq(placement.state, "hold"),
        eq(placement.op, view.id),
      ),
    );
  return revision;
}
