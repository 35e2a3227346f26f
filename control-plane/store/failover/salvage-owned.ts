/**
 * Which keys a cell owned when a failover revoked it, by what that failover recorded.
 *
 * What must always be true: what a move had taken from it, or never let it serve, is none of them; nor is
 * what goes on from its own copy, for all of that goes along. Until it is wiped an earlier failover counts,
 * too: its slots are older than both.
 */
import { and, eq, gt, inArray, or, sql } from "drizzle-orm";
import type { StorePosition } from "../../core/failover/rpo-position.ts";
import { readPositions } from "../../core/failover/rpo-position.ts";
import type { OwnedKeys } from "../../core/failover/salvage-owned.ts";
import type { Reader } from "../database.ts";
import { listKeyspaces } from "../keyspaces.ts";
import { placement } from "../schema.ts";
import { purge } from "../schema-adoption.ts";
import { move, moveKey } from "../schema-moves.ts";

export async function readOwned(
  reader: Reader,
  about: { readonly cell: string; readonly failover: string },
): Promise<OwnedKeys> {
  const { cell } = about;
  const keyspaces = await listKeyspaces(reader);
  return {
    owned: new Map([...(await readGiven(reader, about)), ...(await readKept(reader, cell))]),
    apart: await readApart(reader, cell),
    purged: await readPurged(reader, about),
    keyspaces: new Map(keyspaces.map((one) => [one.id, one])),
  };
}

type Owned = readonly [key: string, applied: readonly StorePosition[]];

/** To others, since its database began. One that was given back before it was served never was its own. */
async function readGiven(
  reader: Reader,
  { cell, failover }: { readonly cell: string; readonly failover: string },
): Promise<Owned[]> {
  const { rows } = await reader.execute<{ key: string; remoteLsn: string | null }>(sql`
    select k.key, max(k.remote_lsn) as "remoteLsn"
      from cellfleet_control.failover_key as k
      join cellfleet_control.failover as f on f.op = k.failover and f.cell = ${cell}
     where k.fate <> 'unavailable'
       and not exists (
         select from cellfleet_control.op as w
          where w.kind = 'cell.wipe' and w.object = f.cell and w.state = 'done'
            and w.id > least(f.op, ${failover}) and w.id < greatest(f.op, ${failover}))
       and (k.fate <> 'returned' or exists (
         select from cellfleet_control.move as m
           join cellfleet_control.move_key as mk on mk.op = m.op and mk.key = k.key
           join cellfleet_control.op as o on o.id = m.op
          where m.target = f.cell and m.op < f.op and o.steps @> '[{"step": "routing"}]'))
     group by k.key`);
  return rows.map(({ key, remoteLsn }) => [key, readPositions(remoteLsn)]);
}

/** Its own to this day, since nobody has another copy. */
async function readKept(reader: Reader, cell: string): Promise<Owned[]> {
  const rows = await reader
    .select({ key: placement.key })
    .from(placement)
    .where(
      and(
        eq(placement.cell, cell),
        eq(placement.deleted, false),
        eq(placement.state, "unavailable"),
      ),
    );
  return rows.map(({ key }) => [key, []]);
}

async function readApart(reader: Reader, cell: string): Promise<ReadonlySet<string>> {
  const moves = reader
    .select({ op: move.op })
    .from(move)
    .where(or(eq(move.source, cell), eq(move.target, cell)));
  const rows = await reader
    .selectDistinct({ key: moveKey.key })
    .from(moveKey)
    .where(inArray(moveKey.op, moves));
  return new Set(rows.map(({ key }) => key));
}

async function readPurged(
  reader: Reader,
  { cell, failover }: { readonly cell: string; readonly failover: string },
): Promise<ReadonlySet<string>> {
  const rows = await reader
    .selectDistinct({ key: purge.key })
    .from(purge)
    .where(and(eq(purge.cell, cell), gt(purge.op, failover)));
  return new Set(rows.map(({ key }) => key));
}
