/**
 * Many tenants in one transaction. Lines are streamed into a temporary table with COPY, on a
 * connection of their own; checked there against each other and against what exists; placed; and
 * inserted by the database itself. The connection ends with the import, and with it whatever an
 * aborted one left.
 */

import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { from as copyFrom } from "pg-copy-streams";
import type { CellView } from "../core/fleet.ts";
import type { ImportLine } from "../core/import-line.ts";
import type { ImportClass, Share } from "../core/import-plan.ts";
import type { Database, Tx } from "./database.ts";
import { rowsPerRevisionMax } from "./ownership-feed.ts";
import { reserve } from "./placements.ts";

export type ImportSession = {
  /** Takes lines as they come; resolves when all are in the database. */
  readonly copy: (lines: AsyncIterable<ImportLine>) => Promise<void>;
  readonly transaction: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>;
  /** Ends the connection; what was not committed is gone. */
  readonly close: () => void;
};

export async function openImport(database: Database): Promise<ImportSession> {
  const client = await database.pool.connect();
  try {
    // Minutes, not seconds; and the upload may pause.
    await client.query(
      "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set work_mem = '64MB'",
    );
    await client.query(`create temporary table import_line (
      line integer not null, id text not null, keyspace text not null, tier text not null,
      region text, cell text, bytes bigint not null, rps double precision not null,
      labels jsonb not null)`);
  } catch (error) {
    client.release(true);
    throw error;
  }
  return {
    copy: async (lines) => {
      const into = client.query(
        copyFrom(
          "copy import_line (line, id, keyspace, tier, region, cell, bytes, rps, labels) from stdin",
        ),
      );
      await pipeline(Readable.from(copyText(lines)), into);
      await client.query("analyze import_line");
    },
    transaction: (work) => drizzle(client).transaction(work),
    close: () => client.release(true),
  };
}

const copyChunkChars = 64 * 1024;

/** The text format of COPY: tab between fields, backslash escapes, `\N` for null. */
async function* copyText(lines: AsyncIterable<ImportLine>): AsyncGenerator<string, void> {
  let chunk = "";
  for await (const one of lines) {
    const fields = [
      one.line,
      one.id,
      one.keyspace,
      one.tier,
      one.region,
      one.cell,
      one.bytes,
      one.rps,
      JSON.stringify(one.labels),
    ];
    chunk += `${fields.map(copyField).join("\t")}\n`;
    if (chunk.length < copyChunkChars) continue;
    yield chunk;
    chunk = "";
  }
  if (chunk !== "") yield chunk;
}

const escapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\t": "\\t",
  "\n": "\\n",
  "\r": "\\r",
};
const copyField = (value: string | number | null): string =>
  value === null ? "\\N" : String(value).replace(/[\\\t\n\r]/g, (found) => escapes[found] ?? found);

export type BadLine = { readonly line: number; readonly error: string };

/**
 * Finds the lines that cannot be applied, and removes them from the table. Afterwards every line has
 * `key`: its own in a directory, its container's otherwise, with the cell of that container.
 */
export async function resolveLines(
  tx: Tx,
  shownMax: number,
): Promise<{ readonly bad: readonly BadLine[]; readonly badTotal: number }> {
  await tx.execute(
    sql`create temporary table import_bad (line integer, error text) on commit drop`,
  );
  await tx.execute(sql`
    create temporary table import_tenant on commit drop as
    select l.*, k.strategy,
           case k.strategy
             when 'directory' then l.keyspace || '/tenant/' || l.id
             when 'slots' then l.keyspace || '/slot/' || (
               (get_byte(decode(md5(l.id), 'hex'), 0) * 256 + get_byte(decode(md5(l.id), 'hex'), 1))
                 & (k.slot_count - 1))
             when 'range' then (
               select p.key from cellfleet_control.placement as p
                where p.keyspace = l.keyspace and p.kind = 'range' and not p.deleted
                  and p.value collate "C" <= l.id collate "C"
                order by p.value collate "C" desc limit 1)
           end as key,
           row_number() over (partition by l.id order by l.line) as nth,
           -- Alike: same tier, region and cell asked for, and the same power of two in size.
           concat_ws('|', l.tier, coalesce(l.region, ''), coalesce(l.cell, ''),
             case when l.bytes = 0 then '' else floor(ln(l.bytes) / ln(2))::text end,
             case when l.rps = 0 then '' else floor(ln(l.rps) / ln(2))::text end) as class
      from import_line as l
      left join cellfleet_control.keyspace as k on k.name = l.keyspace`);
  await tx.execute(sql`
    insert into import_bad
    select line, 'the id ' || id || ' stands in the file before' from import_tenant where nth > 1
    union all
    select line, 'there is no keyspace ' || keyspace from import_tenant where strategy is null
    union all
    select t.line, 'there is no cell ' || t.cell from import_tenant as t
      left join cellfleet_control.cell as c on c.id = t.cell and c.state <> 'retired'
     where t.cell is not null and c.id is null
    union all
    select t.line, 'a tenant with the id ' || t.id || ' exists' from import_tenant as t
      join cellfleet_control.tenant as e on e.id = t.id
    union all
    select t.line, 'a tenant with the id ' || t.id || ' was deleted; ids are not used again'
      from import_tenant as t join cellfleet_control.tombstone as g on g.tenant = t.id
    union all
    select t.line, 'the keyspace ' || t.keyspace || ' has no container for ' || t.id
      from import_tenant as t
      left join cellfleet_control.placement as p on p.key = t.key and not p.deleted
     where t.strategy <> 'directory' and p.key is null
    union all
    select t.line, t.key || ' belongs to ' || p.cell || ', not to ' || t.cell
      from import_tenant as t join cellfleet_control.placement as p on p.key = t.key
     where t.strategy <> 'directory' and t.cell <> p.cell`);
  const { rows: bad } = await tx.execute<BadLine>(sql`
    select line, min(error) as error from import_bad group by line order by line limit ${shownMax}`);
  const { rows: total } = await tx.execute<{ n: number }>(
    sql`select count(distinct line)::int as n from import_bad`,
  );
  const badTotal = total[0]?.n ?? 0;
  if (badTotal > 0) {
    await tx.execute(
      sql`delete from import_tenant as t using import_bad as b where b.line = t.line`,
    );
  }
  // Tenants of a container have no choice of cell.
  await tx.execute(sql`
    update import_tenant as t set cell = p.cell from cellfleet_control.placement as p
     where t.strategy <> 'directory' and p.key = t.key`);
  return { bad, badTotal };
}

/** Tenants alike, for the planner. */
export async function readClasses(tx: Tx): Promise<readonly ImportClass[]> {
  const { rows } = await tx.execute<ImportClass>(sql`
    select class as id, min(tier) as tier, min(region) as region, min(cell) as cell,
           count(*)::int as count, sum(bytes)::float8 as bytes, sum(rps) as rps,
           max(bytes)::float8 as "bytesMax", max(rps) as "rpsMax"
      from import_tenant where strategy = 'directory' group by class order by class`);
  return rows;
}

export type CellLoad = {
  readonly cell: string;
  readonly tenants: number;
  readonly bytes: number;
  readonly rps: number;
};

/** Deals the lines of each class out as planned; what that comes to per cell. */
export async function assignCells(tx: Tx, shares: readonly Share[]): Promise<readonly CellLoad[]> {
  const dealt = new Map<string, number>();
  const ranges = shares.map(({ class: id, cell, count }) => {
    const after = dealt.get(id) ?? 0;
    dealt.set(id, after + count);
    return { class: id, cell, after, upto: after + count };
  });
  await tx.execute(sql`drop table if exists import_placed`);
  await tx.execute(sql`
    create temporary table import_placed on commit drop as
    with dealt as (
      select t.*, row_number() over (partition by class order by line) as turn from import_tenant as t
    )
    select d.id, d.keyspace, d.tier, d.region, d.bytes, d.rps, d.labels, d.strategy, d.key,
           coalesce(s.cell, d.cell) as cell, row_number() over () as no
      from dealt as d
      left join jsonb_to_recordset(${JSON.stringify(ranges)}::jsonb)
             as s(class text, cell text, after bigint, upto bigint)
        on d.strategy = 'directory' and s.class = d.class and d.turn > s.after and d.turn <= s.upto`);
  const { rows } = await tx.execute<CellLoad>(sql`
    select cell, count(*)::int as tenants, sum(bytes)::float8 as bytes, sum(rps) as rps
      from import_placed group by cell order by cell`);
  return rows;
}

/** Do the sizes as they really are fit, cell by cell? */
export const fits = (cells: readonly CellView[], loads: readonly CellLoad[]): boolean =>
  loads.every(({ cell: id, tenants, bytes, rps }) => {
    const cell = cells.find((one) => one.id === id);
    return (
      cell !== undefined &&
      cell.usage.tenants + tenants <= cell.capacity.tenants &&
      cell.usage.bytes + bytes <= cell.capacity.bytes &&
      cell.usage.rps + rps <= cell.capacity.rps
    );
  });

/** How many revisions the placements take: none may change more rows than an agent's page holds. */
export async function countRevisions(tx: Tx): Promise<number> {
  const { rows } = await tx.execute<{ n: number }>(
    sql`select count(*)::int as n from import_placed where strategy = 'directory'`,
  );
  return Math.ceil((rows[0]?.n ?? 0) / rowsPerRevisionMax);
}

/** Inserts everything and reserves the room; placements carry the revisions from `first` on. */
export async function insertPlaced(
  tx: Tx,
  loads: readonly CellLoad[],
  first: number,
  op: string,
): Promise<void> {
  await tx.execute(sql`
    insert into cellfleet_control.placement as p
      (key, keyspace, kind, value, cell, epoch, state, revision, op, attempt, deleted)
    select key, keyspace, 'tenant', id, cell, 1, 'pending',
           ${first} + (row_number() over (order by no) - 1) / ${rowsPerRevisionMax}, ${op}, 0, false
      from import_placed where strategy = 'directory' order by no
    on conflict (key) do update set cell = excluded.cell, epoch = p.epoch + 1, state = 'pending',
      revision = excluded.revision, op = excluded.op, attempt = 0, deleted = false
      where p.deleted`);
  await tx.execute(sql`
    insert into cellfleet_control.tenant
      (id, keyspace, tier, region, size_bytes, size_rps, labels, placement_key)
    select id, keyspace, tier, region, bytes, rps, labels, key from import_placed order by no`);
  // Last, because cells renew their leases in these rows, and must not wait for a million inserts.
  for (const { cell, ...load } of loads) await reserve(tx, cell, load);
}
