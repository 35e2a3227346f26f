/**
 * Moves that touch a cell which is failed over. Before their commit they end: the keys stay where they
 * are. After it they go on; what they still wanted of a dead source is left to the sweep of moves.
 *
 * What must always be true: a key whose new owner died before it served goes back to the cell that has
 * all its rows, at the next epoch; a key that another cell serves is not touched.
 */
import { and, eq, inArray, or, sql } from "drizzle-orm";
import type { MovedIn } from "../../core/failover/homes.ts";
import { isReversible } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { databaseNowMs, type Reader, type Tx } from "../database.ts";
import { askMove, closeKeys } from "../moves/ask.ts";
import { endUnmoved } from "../moves/end.ts";
import { findMove, moveKind, toMoveView } from "../moves/read.ts";
import { changeOp } from "../ops.ts";
import { changeRouting } from "../routing-change.ts";
import { op, placement } from "../schema.ts";
import { move } from "../schema-moves.ts";

/** In the order of whoever enters a step: that one comes before, and is seen here, or comes after and is refused. */
async function movesAt(tx: Tx, cell: string): Promise<MoveView[]> {
  const rows = await tx
    .select({ id: op.id })
    .from(op)
    .innerJoin(move, eq(move.op, op.id))
    .where(
      and(
        eq(op.kind, moveKind),
        inArray(op.state, ["pending", "running"]),
        or(eq(move.source, cell), eq(move.target, cell)),
      ),
    )
    .orderBy(op.id)
    .for("update");
  const found: MoveView[] = [];
  for (const { id } of rows) {
    const row = await findMove(tx, id);
    if (row !== undefined) found.push(toMoveView(row));
  }
  return found;
}

/**
 * With REVOKING. From the dead cell: over at once, nobody waits for what it does not answer. Into it:
 * cancelled, so that the living source is opened again in order.
 */
export async function stopMovesBeforeCommit(tx: Tx, cell: string, why: string): Promise<number> {
  const early = (await movesAt(tx, cell)).filter(({ step }) => isReversible(step));
  for (const view of early) {
    if (view.source === cell) await endAtOnce(tx, view, why);
    else await askMove(tx, view.id, { wish: "cancel", paused: false });
  }
  return early.length;
}

async function endAtOnce(tx: Tx, view: MoveView, why: string): Promise<void> {
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
        eq(placement.cell, view.source),
        eq(placement.state, "hold"),
      ),
    );
  await endUnmoved(tx, view);
  const message = `${why}: the move ends before its commit, its keys stay with ${view.source}; what it made is removed when the cells answer.`;
  const failure = {
    ...({ code: "OP_FAILED", message } as const),
    nextSteps: [`cellctl move show ${view.id}`, "cellctl failover status"],
  };
  const change = { step: "failed", state: "failed", headline: message, failure } as const;
  await changeOp(tx, view, change, await databaseNowMs(tx));
}

/**
 * Once the cell is certainly not coming back as it was. Moves out of it that the target serves: done.
 * Moves into it that it never served: their keys go back. The rest is told by `readMovedIn`.
 */
export async function settleMovesAfterCommit(
  tx: Tx,
  run: { readonly id: string; readonly cell: string; readonly attempt: number },
): Promise<{ readonly ended: number; readonly returned: number }> {
  let ended = 0;
  let returned = 0;
  for (const view of await movesAt(tx, run.cell)) {
    if (isReversible(view.step) || view.step === "diverged") continue;
    if (view.source === run.cell && view.step !== "activating") {
      const text = `done: ${view.target} serves; ${view.source} is failed over, so there is no way back and nothing to remove in it`;
      await endServed(tx, view, text);
      ended += 1;
    } else if (view.target === run.cell && view.step === "activating") {
      returned += await giveBack(tx, view, run, {
        states: ["hold"],
        reason: `${view.id} had given it to ${run.cell}, which never served it`,
        headline: `taken back: ${view.target} died before it served; ${view.source} serves again`,
        remoteLsn: null,
      });
    }
  }
  return { ended, returned };
}

async function endServed(tx: Tx, view: MoveView, headline: string): Promise<void> {
  await closeKeys(tx, view.id);
  await changeOp(tx, view, { step: "done", state: "done", headline }, await databaseNowMs(tx));
}

/**
 * To the cell that the move took the keys from. Where nobody was told of the new owner, it acknowledged
 * nothing, and the source's rows are all there is; else they are as far as the way back had come.
 */
async function giveBack(
  tx: Tx,
  view: MoveView,
  run: { readonly id: string; readonly cell: string; readonly attempt: number },
  how: {
    readonly states: readonly string[];
    readonly reason: string;
    readonly headline: string;
    /** Applied there of the dead cell's log. */
    readonly remoteLsn: string | null;
  },
): Promise<number> {
  const revision = await changeRouting(tx, { config: false });
  const keys = sql.param(view.keys.map(({ key }) => key));
  const { rowCount } = await tx.execute(sql`
    with back as (
      update cellfleet_control.placement as p
         set cell = ${view.source}, epoch = p.epoch + 1, state = 'pending', op = ${run.id},
             attempt = ${run.attempt}, revision = ${revision}
       where p.key = any(${keys}::text[]) and p.cell = ${run.cell}
         and p.state = any(${sql.param(how.states)}::text[]) and not p.deleted
      returning p.key, p.epoch - 1 as epoch
    ), lost as (
      insert into cellfleet_control.disowned as d (cell, key, state, epoch, op, attempt, revision)
      select ${run.cell}, key, 'moved', epoch, ${run.id}, ${run.attempt}, ${revision} from back
      on conflict (cell, key) do update set state = 'moved', epoch = excluded.epoch,
        op = excluded.op, attempt = excluded.attempt, revision = excluded.revision
    ), mine as (
      delete from cellfleet_control.disowned as d using back
       where d.cell = ${view.source} and d.key = back.key
    )
    insert into cellfleet_control.failover_key (failover, key, fate, target, wave, epoch, reason, remote_lsn)
    select ${run.id}, key, 'returned', ${view.source}, 0, epoch, ${how.reason}, ${how.remoteLsn}::text
      from back
    on conflict (failover, key) do nothing`);
  const count = rowCount ?? 0;
  await weigh(tx, view, count);
  const { headline } = how;
  await closeKeys(tx, view.id);
  const failure = {
    ...({ code: "OP_FAILED", message: `${headline}.` } as const),
    nextSteps: [`cellctl failover status ${run.id}`],
  };
  const change = { step: "failed", state: "failed", headline, failure } as const;
  await changeOp(tx, view, change, await databaseNowMs(tx));
  return count;
}

/** What tenants weigh is counted in their owner's cell alone. */
async function weigh(tx: Tx, view: MoveView, count: number): Promise<void> {
  if (count === 0) return;
  const keys = sql.param(view.keys.map(({ key }) => key));
  for (const [cell, sign] of [
    [view.source, 1],
    [view.target, -1],
  ] as const) {
    await tx.execute(sql`
      update cellfleet_control.cell as c set
        used_tenants = greatest(0, c.used_tenants + ${sign} * l.tenants),
        used_bytes = greatest(0, c.used_bytes + ${sign} * l.bytes),
        used_rps = greatest(0, c.used_rps + ${sign} * l.rps)
      from (select count(*)::int as tenants,
                   coalesce(sum(greatest(size_bytes, measured_bytes)), 0)::bigint as bytes,
                   coalesce(sum(greatest(size_rps, measured_rps)), 0) as rps
              from cellfleet_control.tenant where placement_key = any(${keys}::text[])) as l
      where c.id = ${cell}`);
  }
}

/** Keys that a move brought to this cell and that soak, or did not get so far: their rows may not be in its standbys. */
export async function readMovedIn(reader: Reader, cell: string): Promise<Map<string, MovedIn>> {
  const { rows } = await reader.execute<MovedIn & { key: string }>(sql`
    select k.key, m.op as move, m.source,
           coalesce((select max(extract(epoch from (s ->> 'at')::timestamptz))::float8 * 1000
                       from jsonb_array_elements(o.steps) as s where s ->> 'step' = 'routing'),
                    extract(epoch from o.updated_at)::float8 * 1000) as "switchedAtMs"
      from cellfleet_control.move as m
      join cellfleet_control.op as o on o.id = m.op and o.state = 'running'
      join cellfleet_control.move_key as k on k.op = m.op and k.open
     where m.target = ${cell} and o.step in ('routing', 'reversing', 'soaking', 'diverged', 'cleaning')`);
  return new Map(rows.map(({ key, ...moved }) => [key, moved]));
}

/** Moves into the dead cell that soak: their source has followed it. */
export async function soakingInto(reader: Reader, cell: string): Promise<MoveView[]> {
  const rows = await reader
    .select({ id: op.id })
    .from(op)
    .innerJoin(move, eq(move.op, op.id))
    .where(and(eq(move.target, cell), eq(op.step, "soaking"), eq(op.state, "running")))
    .orderBy(op.id);
  const found: MoveView[] = [];
  for (const { id } of rows) {
    const row = await findMove(reader, id);
    if (row !== undefined) found.push(toMoveView(row));
  }
  return found;
}

/** False: the move is somewhere else by now, and nothing was changed. */
export async function returnSoaking(
  tx: Tx,
  id: string,
  run: { readonly id: string; readonly cell: string; readonly attempt: number },
  remoteLsn: string | null,
): Promise<boolean> {
  const view = (await movesAt(tx, run.cell)).find((one) => one.id === id);
  if (view === undefined || view.step !== "soaking") return false;
  const text = `${view.target} died while the move soaked; ${view.source} had followed it and serves again`;
  await giveBack(tx, view, run, {
    ...{ states: ["active", "hold"], headline: `taken back: ${text}`, remoteLsn },
    reason: `${view.id} had just brought it; ${view.source} has it up to ${remoteLsn ?? "where the way back began"}, no standby has more`,
  });
  return true;
}

/** The moves whose keys are adopted now have nobody to soak with. The source keeps its rows. */
export async function endMovesOfAdopted(tx: Tx, run: { readonly cell: string }): Promise<number> {
  let ended = 0;
  for (const view of await movesAt(tx, run.cell)) {
    if (view.target !== run.cell || isReversible(view.step) || view.step === "activating") continue;
    const keys = view.keys.map(({ key }) => key);
    const stay = await tx.$count(
      placement,
      and(inArray(placement.key, keys), eq(placement.cell, run.cell)),
    );
    if (stay > 0) continue;
    const text = `done: ${view.target} is failed over; a standby of it serves the keys, ${view.source} keeps the rows it had`;
    await endServed(tx, view, text);
    ended += 1;
  }
  return ended;
}
