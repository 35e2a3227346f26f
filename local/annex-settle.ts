/**
 * After its promotion the server of a physical standby is still its origin in everything but the data: its
 * name, its keys, its grants, its ranges of ids, its subscriptions. Here it becomes the annex, as which the
 * annex's agent has stood on a desk so far: small databases in the host's own server.
 *
 * What must always be true: carried over is only what has an open takeover and no promise left, in one
 * transaction per store, while no agent stands on the desk: so no promise is forgotten, and none is made
 * behind it. What was carried over once is not carried over again. The origin's streams are let go of
 * before the server may run workers that would follow them.
 */
import pg from "pg";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";
import { withClient } from "./cell-database.ts";

/** One store, as superuser: on the desk, and in the promoted server. */
export type SettledStore = {
  readonly annex: CellId;
  readonly desk: string;
  readonly own: string;
};

/**
 * What the annex knows and its origin must not answer for. The others tell of tables, and are alike; the
 * heartbeat is the last one that arrived, and the line of the stream says where it was cut.
 */
const carried = [
  ...["progress", "stage", "keyspace", "ownership", "grant_seen", "id_range", "partner_list"],
  ...["stopped", "annex_of", "gold_list", "purging"],
  ...["closed_gate", "gate_answer", "gate_order", "gate_agent"],
] as const;

const stateSchema = z.object({ open: z.boolean(), promised: z.boolean() });
const sequenceSchema = z.object({ name: z.string(), last: z.string(), called: z.boolean() });
const leasedSchema = z.object({ sequence: z.string(), register: z.string(), floor: z.string() });

export async function settleStore({ annex, desk, own }: SettledStore): Promise<void> {
  await withClient(own, async (server) => {
    if (await isSettled(server, annex)) return;
    await withClient(desk, async (from) => {
      await from.query("begin isolation level repeatable read");
      await requireOpen(from, annex);
      await server.query("begin");
      const { rows } = await server.query<{ epoch: string }>(
        "select epoch_max::text as epoch from cellfleet.progress",
      );
      for (const table of carried) await carryTable(from, server, table);
      await server.query(
        "update cellfleet.progress set epoch_max = greatest(epoch_max, $1::bigint), cell = $2",
        [rows[0]?.epoch ?? "0", annex],
      );
      for (const sequence of await readSequences(from)) await carrySequence(server, sequence);
      await server.query("commit");
      await from.query("commit");
    });
  });
}

async function isSettled(server: pg.Client, annex: CellId): Promise<boolean> {
  const { rows } = await server.query<{ following: boolean; settled: boolean }>(
    `select pg_is_in_recovery() as following, p.cell is not distinct from $1 as settled
       from cellfleet.progress p`,
    [annex],
  );
  if (rows[0]?.following === true) {
    throw new CellError(
      "STATE_CONFLICT",
      `${annex} follows its origin still: it is not cut off yet`,
      {
        nextSteps: ["cellctl standby ls"],
      },
    );
  }
  return rows[0]?.settled === true;
}

async function requireOpen(desk: pg.Client, annex: CellId): Promise<void> {
  const { rows } = await desk.query<{ state: unknown }>(
    "select jsonb_build_object('open', a.open, 'promised', a.promised_ms > 0) as state from cellfleet.annex_of a",
  );
  const state = rows[0] === undefined ? undefined : stateSchema.parse(rows[0].state);
  if (state?.open === true && !state.promised) return;
  throw new CellError(
    "STATE_CONFLICT",
    `No takeover is open in ${annex}, or something is promised`,
    {
      nextSteps: ["cellctl failover status"],
    },
  );
}

/** Columns that only one side has are left to the migration that follows. */
async function carryTable(from: pg.Client, to: pg.Client, table: string): Promise<void> {
  const { rows } = await from.query<{ lines: string }>(
    `select coalesce(jsonb_agg(to_jsonb(t)), '[]')::text as lines from cellfleet.${table} t`,
  );
  await to.query(`delete from cellfleet.${table}`);
  await to.query(
    `insert into cellfleet.${table} select * from jsonb_populate_recordset(null::cellfleet.${table}, $1::jsonb)`,
    [rows[0]?.lines ?? "[]"],
  );
}

type Sequence = z.infer<typeof sequenceSchema> & { readonly floor?: string };

/** Of the ids that are leased, ranges are the annex's own; and what stops buckets. */
async function readSequences(desk: pg.Client): Promise<Sequence[]> {
  const { rows } = await desk.query<{ leased: unknown }>(
    `select jsonb_build_object('sequence', s.name, 'register', s.register::text, 'floor', s.floor::text) as leased
       from cellfleet.id_sequence s order by s.name`,
  );
  const sequences: Sequence[] = [];
  for (const { leased } of rows) {
    const { sequence, register, floor } = leasedSchema.parse(leased);
    sequences.push({ ...(await readSequence(desk, sequence)), floor });
    sequences.push(await readSequence(desk, register));
  }
  for (const word of [0, 1, 2, 3]) {
    sequences.push(await readSequence(desk, `cellfleet.stopped_${word}`));
  }
  return sequences;
}

async function readSequence(desk: pg.Client, name: string): Promise<Sequence> {
  const { rows } = await desk.query(
    `select last_value::text as last, is_called as called from ${name}`,
  );
  return sequenceSchema.parse({ name, ...rows[0] });
}

async function carrySequence(server: pg.Client, sequence: Sequence): Promise<void> {
  const { name, last, called, floor } = sequence;
  await server.query("select setval($1::regclass, $2, $3)", [name, last, called]);
  if (floor === undefined) return;
  await server.query("update cellfleet.id_sequence set floor = $2 where name = $1", [name, floor]);
}

/** Of all databases of the promoted server: the slots at the other end belong to the origin. */
export async function letStreamsGo(url: (database?: string) => string): Promise<void> {
  const names = await withClient(url(), async (client) => {
    const { rows } = await client.query<{ name: string }>(
      "select distinct d.datname as name from pg_subscription s join pg_database d on d.oid = s.subdbid",
    );
    return rows.map(({ name }) => name);
  });
  for (const name of names) await withClient(url(name), dropSubscriptions);
}

async function dropSubscriptions(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select s.subname as name from pg_subscription s
       join pg_database d on d.oid = s.subdbid and d.datname = current_database()`,
  );
  for (const { name } of rows) {
    const id = pg.escapeIdentifier(name);
    await client.query(`alter subscription ${id} disable`);
    await client.query(`alter subscription ${id} set (slot_name = none)`);
    await client.query(`drop subscription ${id}`);
  }
}
