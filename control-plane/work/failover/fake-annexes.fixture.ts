/**
 * Annexes' agents for tests of failovers, without processes: orders are recorded by their databases, ownership
 * is applied as it is told, moves go through at once.
 */
import { and, eq, sql } from "drizzle-orm";
import { systemClock } from "../../../runtime/clock.ts";
import type { Database } from "../../store/database.ts";
import { closeKeys } from "../../store/moves/ask.ts";
import { handRoomOver } from "../../store/moves/room.ts";
import { activateApplied, readChanges } from "../../store/ownership-feed.ts";
import { agent, cell, op } from "../../store/schema.ts";
import { standby } from "../../store/schema-standby.ts";

export type FakeAnnex = {
  readonly id: string;
  readonly host: string;
  /** Its agent calls; what its database records of orders is settled when a failover begins. */
  answers: boolean;
  appReachable: boolean;
  /** Changes when its agent, or its database's server, is started again. */
  instance: string;
  boot: string;
  promiseMs: number;
  /** Its database records that keys may become active. */
  recordsOpen: boolean;
  /** Ownership is applied while true. */
  applies: boolean;
  /** Called when it has applied these keys. */
  onApplied: (keys: readonly string[]) => void;
};

/**
 * An annex that answers records an order at once, however slow this machine is; those that do not are waited
 * for as long as patience says.
 */
export const annexesRecord = `
  create table public.answering (annex text primary key, opens boolean, promise_ms float8);
  create function public.record_order() returns trigger language plpgsql as $$
  declare
    v public.answering;
  begin
    select * into v from public.answering a where a.annex = new.annex;
    if found then
      new.takeover_failover := new.order_failover;
      new.takeover_attempt := new.order_attempt;
      new.takeover_open := new.order_open and v.opens;
      new.promise_remaining_ms := v.promise_ms;
      new.reported_at := clock_timestamp();
    end if;
    return new;
  end $$;
  create trigger record_order before update on cellfleet_control.standby
    for each row execute function public.record_order();`;

/** What the database does for the annex when it is ordered. */
export async function settle({ read }: Database, annex: FakeAnnex): Promise<void> {
  await read.execute(sql`delete from public.answering where annex = ${annex.id}`);
  if (!annex.answers) return;
  await read.execute(sql`
    insert into public.answering values (${annex.id}, ${annex.recordsOpen}, ${annex.promiseMs})`);
}

/** Annexes' agents, and an executor of moves that needs no time. */
export async function live(
  database: Database,
  annexes: ReadonlyMap<string, { readonly annex: FakeAnnex; readonly log: string[] }>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    for (const { annex, log } of [...annexes.values()]) {
      if (annex.answers) await callOnce(database, annex, log).catch(() => undefined);
    }
    await moveAll(database).catch(() => undefined);
    await systemClock.sleep(5, signal);
  }
}

const applied = new Map<string, number>();

async function callOnce(database: Database, annex: FakeAnnex, log: string[]): Promise<void> {
  const { read } = database;
  const { id } = annex;
  const [row] = await read.select().from(standby).where(eq(standby.annex, id));
  const page = annex.applies ? await readChanges(read, id, applied.get(id) ?? 0) : undefined;
  const active = page?.changes.filter(({ state }) => state === "active") ?? [];
  if (active.length > 0 && row?.takeoverOpen !== true) {
    log.push(`too early ${id}`);
    return;
  }
  for (const { key } of active) log.push(`adopt ${key}`);
  if (active.length > 0) annex.onApplied(active.map(({ key }) => key));
  await report(database, annex);
  if (page === undefined) return;
  applied.set(id, page.revision);
  await activateApplied(database, id, page.revision, []);
}

/** What the keys did to it shows before they count as served. */
async function report(database: Database, annex: FakeAnnex): Promise<void> {
  const { id, instance, appReachable, boot } = annex;
  const seen = { instance, appReachable, databaseReachable: true, primary: true };
  await database.read
    .insert(agent)
    .values({ ...seen, cell: id, endpoint: "http://127.0.0.1:1" })
    .onConflictDoUpdate({
      target: [agent.cell, agent.instance],
      set: { ...seen, seenAt: sql`clock_timestamp()` },
    });
  await database.read
    .update(cell)
    .set({ boot })
    .where(and(eq(cell.id, id), sql`${cell.boot} <> ${boot}`));
}

async function moveAll(database: Database): Promise<void> {
  const { rows } = await database.read.execute<{ id: string; target: string; source: string }>(sql`
    select o.id, m.target, m.source from cellfleet_control.op as o
      join cellfleet_control.move as m on m.op = o.id
     where o.kind = 'tenant.move' and o.state = 'running' and o.step = 'planned'`);
  for (const { id, target, source } of rows) {
    await database.transaction(async (tx) => {
      await tx.execute(sql`
        update cellfleet_control.placement as p set cell = ${target}, epoch = p.epoch + 1
          from cellfleet_control.move_key as k
         where k.op = ${id} and k.key = p.key and p.cell = ${source}`);
      await handRoomOver(tx, id);
      await closeKeys(tx, id);
      await tx.update(op).set({ step: "done", state: "done" }).where(eq(op.id, id));
    });
  }
}
