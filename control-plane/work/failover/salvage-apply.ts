/**
 * Writes salvaged rows into the homes of their tenants, each in a transaction of its own, in the order in
 * which they were committed.
 *
 * What must always be true: the home's own guard lets the row in, under the key's lock and epoch, as it
 * would a row of the application; what the home has is never overwritten unless that was asked for, and never
 * removed; done again after a crash, a row that was written is found to be the same.
 */
import pg from "pg";
import type { SalvageVerdict } from "../../../contract/salvage-api.ts";
import { inTransaction } from "../../../moving/connection.ts";
import {
  commitOf,
  commitsInConflict,
  decideRow,
  pageOfRows,
  type SalvageRecord,
} from "../../store/failover/salvage.ts";
import { judgeAll, wantedOf } from "./salvage-read.ts";
import { judgeThere, write } from "./salvage-rows.ts";
import { type Home, openHomes, type SalvageWorld } from "./salvage-world.ts";

export type ApplyOptions = { readonly tenant: string | undefined; readonly force: boolean };
export type Applied = { readonly applied: number; readonly left: number };

const pageRows = 500;
const unreachableStates = /^(08|28|57P|53300|3D000)/;

/** Throws CELL_DATABASE_UNREACHABLE. */
export async function applySalvaged(
  world: SalvageWorld,
  id: string,
  options: ApplyOptions,
  signal: AbortSignal,
): Promise<Applied> {
  const homes = openHomes(world);
  const done = { applied: 0, left: 0 };
  const { force } = options;
  // A client that was not answered has sent its write again, under the same idempotency key: only that row
  // tells, and the others of its transaction would stand there twice.
  if (!force) await judgeAll(world, id, signal);
  const held = force ? new Set<string>() : await commitsInConflict(world.database.read, id);
  try {
    for (let after = 0; ; ) {
      signal.throwIfAborted();
      const asked = { after, limit: pageRows, tenant: options.tenant, onlyOpen: true };
      const page = await pageOfRows(world.database.read, id, asked);
      for (const record of page) {
        const home = await homes.of({ ...record, table: record.tableName });
        const outcome = await decide(home, record, held, force);
        await decideRow(world.database, record.id, outcome);
        done[outcome.decision === "applied" ? "applied" : "left"] += 1;
      }
      const last = page.at(-1);
      if (last === undefined) return done;
      after = last.id;
    }
  } finally {
    await homes.close();
  }
}

type Outcome = Parameters<typeof decideRow>[2];
const left = (note: string, verdict: SalvageVerdict = "conflict"): Outcome => ({
  ...{ decision: "open", note, verdict },
});
const isHeldBack = (record: SalvageRecord, held: ReadonlySet<string>): boolean =>
  record.verdict === "free" && held.has(commitOf(record));
const heldNote =
  "another row of its transaction is in conflict: applied alone it might stand twice";
const deletionNote =
  "the home has the row: no deletion is applied, delete it there if it should go";
/** From then on the home has it. */
const applied: Outcome = { decision: "applied", note: "", verdict: "same" };

async function decide(
  home: Home | string,
  record: SalvageRecord,
  held: ReadonlySet<string>,
  force: boolean,
): Promise<Outcome> {
  if (typeof home === "string") return left(home, "homeless");
  if (isHeldBack(record, held)) return left(heldNote, record.verdict);
  return applyOne(home, record, force);
}

async function applyOne(home: Home, record: SalvageRecord, force: boolean): Promise<Outcome> {
  const { client, shape } = home;
  const wanted = wantedOf(record);
  try {
    return await inTransaction(client, async () => {
      await client.query("select pg_advisory_xact_lock_shared(cellfleet.lock_key($1))", [home.key]);
      // Says the epoch as well: a key that left and came back is not the one that was looked at.
      await client.query("select cellfleet.enter($1, $2)", [home.key, home.epoch]);
      const { verdict, theirs } = await judgeThere(client, shape, wanted);
      if (verdict === "same") return applied;
      // A row that the home has may be wanted there; once it is removed nobody brings it back.
      if (wanted.row === null) return left(deletionNote);
      if (verdict === "conflict" && !force) {
        return left(theirs === undefined ? "the home has no such row" : "the home has another row");
      }
      await write(client, shape, { ...wanted, row: wanted.row }, theirs !== undefined);
      return applied;
    });
  } catch (error) {
    // Of one row: a foreign key, a unique value, the guard. The others go on.
    if (error instanceof pg.DatabaseError && !unreachableStates.test(error.code ?? "")) {
      return left(`PostgreSQL refused it (${error.code}): ${error.message}`);
    }
    throw error;
  }
}
