/** What a cell that is being emptied still owns, and the moves that empty it. */
import { and, eq, inArray, ne, notInArray, type SQL, sql } from "drizzle-orm";
import type { MoveOptions } from "../../contract/move-api.ts";
import { movePlanSchema } from "../../contract/move-api.ts";
import { parsePlacementKey } from "../../contract/placement-key.ts";
import { must } from "../../runtime/assert.ts";
import type { Departure, LeavingKey } from "../core/emptying.ts";
import type { Tier } from "../core/fleet.ts";
import { planSteps } from "../core/move/move-plan.ts";
import type { MovingLoad } from "../core/move/move-target.ts";
import { noRoom, obstacleAt } from "../core/move/move-target.ts";
import { Abandoned } from "./abandoned.ts";
import { recordAudit } from "./audit.ts";
import { drainKind } from "./balancing/read.ts";
import type { Database, Reader, Tx } from "./database.ts";
import { cellStores, readCell } from "./fleet-store.ts";
import { holdsTerm } from "./leader.ts";
import { inMotion, insertMove, otherOpOn } from "./moves/ask.ts";
import { loadsUnder, placementsByKey } from "./moves/candidates.ts";
import { moveKind } from "./moves/read.ts";
import { reserve } from "./placements.ts";
import { lockNormalFleet } from "./routing-change.ts";
import { op, placement } from "./schema.ts";
import { move } from "./schema-moves.ts";

export type Leaving = {
  readonly keys: readonly LeavingKey[];
  /** All that it owns and is not being deleted, in motion or not. */
  readonly left: number;
  /** Moves under way that take keys from it, those that soak left out. */
  readonly underWay: number;
  /** One that it owns and that no move may take: it is suspended, or served by nobody. */
  readonly unmovable: { readonly key: string; readonly state: string } | undefined;
};

const resting = ["soaking", "diverged"];

/** At most `limit` keys that may go now; gold ones first. `sinceOp`: failures of moves after this one count. */
export async function readLeaving(
  reader: Reader,
  cell: string,
  about: {
    readonly sinceOp: string;
    readonly limit: number;
    /** Only this share of the keys, by a hash of the key that never changes; absent: all. */
    readonly percent?: number | undefined;
  },
): Promise<Leaving> {
  const share = shareOfKeys(about.percent ?? 100);
  const here = and(
    eq(placement.cell, cell),
    eq(placement.deleted, false),
    ne(placement.state, "deleting"),
    share(sql`${placement.key}`),
  );
  const left = await reader.$count(placement, here);
  const underWay = await movesUnderWay(reader, cell);
  const { rows } = await reader.execute<Row>(sql`
    select p.key, p.keyspace, t.tier,
           coalesce(f.failures, 0)::int as failures,
           coalesce(f.ms, 0)::float8 as "failedMs"
      from cellfleet_control.placement as p
      left join lateral (
        select min(case tier when 'gold' then 0 when 'standard' then 1 else 2 end) as tier
          from cellfleet_control.tenant where placement_key = p.key
      ) as t on true
      left join lateral (
        select count(*) as failures,
               min(extract(epoch from clock_timestamp() - o.updated_at)) * 1000 as ms
          from cellfleet_control.move_key as k
          join cellfleet_control.move as m on m.op = k.op and m.source = ${cell}
          join cellfleet_control.op as o on o.id = k.op and o.state = 'failed'
         where k.key = p.key and k.op > ${about.sinceOp}
      ) as f on true
     where p.cell = ${cell} and not p.deleted and p.state = 'active' and ${share(sql`p.key`)}
       and not exists (select from cellfleet_control.move_key as k where k.key = p.key and k.open)
     order by coalesce(t.tier, 1), p.key limit ${about.limit}`);
  const loads = await loadsByKey(
    reader,
    rows.map(({ key }) => key),
  );
  const [unmovable] = await reader
    .select({ key: placement.key, state: placement.state })
    .from(placement)
    .where(and(here, inArray(placement.state, ["suspended", "unavailable"])))
    .orderBy(placement.key)
    .limit(1);
  const keys = rows.map((row) => toLeaving(row, loads.get(row.key)));
  return { keys, left, underWay, unmovable };
}

/** The keys below ten percent are below twenty, too. */
const shareOfKeys =
  (percent: number) =>
  (key: SQL): SQL =>
    percent >= 100
      ? sql`true`
      : sql`('x' || left(md5(${key}), 8))::bit(32)::bigint % 100 < ${percent}`;

type Row = {
  readonly key: string;
  readonly keyspace: string;
  readonly tier: number | null;
  readonly failures: number;
  readonly failedMs: number;
};

const tiersByRank: readonly Tier[] = ["gold", "standard", "free"];

const toLeaving = (row: Row, loads: readonly MovingLoad[] | undefined): LeavingKey => ({
  ...row,
  tier: tiersByRank[row.tier ?? 1] ?? "standard",
  loads: loads ?? [emptyLoad(row.key)],
});

const nameOf = (key: string): string => {
  const parts = parsePlacementKey(key);
  return parts?.kind === "tenant" ? parts.tenant : key;
};

/** A container without tenants. */
const emptyLoad = (key: string): MovingLoad => ({
  ...{ name: nameOf(key), tier: "standard", region: null },
  ...{ tenants: 0, bytes: 0, rps: 0, bytesLargest: 0, rpsLargest: 0 },
});

async function loadsByKey(
  reader: Reader,
  keys: readonly string[],
): Promise<Map<string, MovingLoad[]>> {
  const found = await loadsUnder(reader, keys);
  return Map.groupBy(
    found.map(({ key, ...load }) => ({ ...load, key, name: nameOf(key) })),
    ({ key }) => key,
  );
}

const movesUnderWay = (reader: Reader, cell: string): Promise<number> =>
  reader.$count(
    op,
    and(
      eq(op.kind, moveKind),
      inArray(op.state, ["pending", "running"]),
      notInArray(op.step, resting),
      inArray(op.id, reader.select({ id: move.op }).from(move).where(eq(move.source, cell))),
    ),
  );

export type DepartureOrder = {
  /** The operation that empties the cell: once a drain is over, no move is begun for it. */
  readonly by?: string;
  readonly id: string;
  readonly term: number;
  readonly nowMs: number;
  readonly from: string;
  readonly departure: Departure;
  readonly options: MoveOptions;
  readonly actor: { readonly name: string; readonly role: string };
  readonly reason: string;
};

/** False: something changed since it was planned; plan again. One that leads no longer begins nothing. */
export async function beginDeparture(database: Database, order: DepartureOrder): Promise<boolean> {
  try {
    return await database.transaction((tx) => record(tx, order));
  } catch (error) {
    if (error instanceof Abandoned) return false;
    throw error;
  }
}

async function isOverDrain(tx: Tx, id: string): Promise<boolean> {
  const [row] = await tx.select({ kind: op.kind, state: op.state }).from(op).where(eq(op.id, id));
  return row?.kind === drainKind && row.state !== "pending" && row.state !== "running";
}

async function record(tx: Tx, order: DepartureOrder): Promise<boolean> {
  if (!(await holdsTerm(tx, order.term))) throw new Abandoned("deposed");
  await lockNormalFleet(tx);
  // Whoever calls a drain off holds the fleet's lock, too: what it did not see is not begun after it.
  if (order.by !== undefined && (await isOverDrain(tx, order.by))) return false;
  const { from, departure, options, id } = order;
  const { target, keyspace } = departure;
  const wanted = [...departure.keys];
  const rows = (await placementsByKey(tx, wanted)).filter(
    ({ cell, state }) => cell === from && state === "active",
  );
  const tenants = rows.flatMap(({ kind, value }) => (kind === "tenant" ? [value] : []));
  const isBusy =
    rows.length !== wanted.length ||
    (await inMotion(tx, wanted)).length > 0 ||
    (await otherOpOn(tx, wanted, tenants)) !== undefined;
  if (isBusy) return false;
  const loads = [...(await loadsByKey(tx, wanted)).values()].flat();
  const cell = must(await readCell(tx, target), `cell ${target}`);
  if (obstacleAt(cell, loads, noRoom) !== undefined) return false;
  const plan = movePlanSchema.parse({
    ...{ keyspace, source: from, target, keys: wanted },
    stores: await databasesOf(tx, from),
    ...{ tables: [], checks: [], estimate: { rows: 0, bytes: 0, copyMs: 0, pauseMs: 0 } },
    steps: planSteps({ source: from, target, options, isReversal: false }),
  });
  const { room } = departure;
  const name =
    wanted.length === 1
      ? nameOf(wanted[0] ?? "")
      : `${nameOf(wanted[0] ?? "")} and ${wanted.length - 1} more`;
  const { actor, reason, nowMs } = order;
  await recordAudit(
    tx,
    {
      ...{ actor, reason, action: "move.start", object: name, outcome: "accepted" },
      after: { id, source: from, target, keys: wanted, options },
    },
    nowMs,
  );
  await reserve(tx, target, room);
  await insertMove(tx, {
    ...{ plan, options, reverses: null },
    keys: rows.map(({ key, epoch }) => ({ key, epoch })),
    op: {
      ...{ id, object: name, input: { source: from, target, room }, reason, nowMs },
      plan: {
        kind: moveKind,
        steps: plan.steps.map(({ step, text }) => ({ action: step, object: name, text })),
        skipped: [],
      },
      headline: `waits for its turn: ${name} from ${from} to ${target}`,
      actor: actor.name,
    },
  });
  return true;
}

const databasesOf = async (reader: Reader, cell: string): Promise<string[]> =>
  Object.entries(await cellStores(reader, cell))
    .filter(([, { kind, ignore }]) => kind !== "external" && ignore !== true)
    .map(([name]) => name);

/** Cancels what has not begun to switch yet: whoever calls off an emptying keeps what is there. */
export async function movesFrom(reader: Reader, cell: string, sinceOp: string): Promise<string[]> {
  const rows = await reader
    .select({ id: op.id })
    .from(op)
    .innerJoin(move, eq(move.op, op.id))
    .where(
      and(
        eq(move.source, cell),
        inArray(op.state, ["pending", "running"]),
        sql`${op.id} > ${sinceOp}`,
      ),
    )
    .orderBy(op.id);
  return rows.map(({ id }) => id);
}
