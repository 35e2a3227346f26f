/**
 * Making a standby's stream, and bringing tables into it that came since.
 *
 * What must always be true: everything may be repeated from any half state, by another process too, whose
 * sessions end those of the one before; a stream that stands is never made anew, and one that cannot go on
 * (its slot is lost) is, with all its rows; a stream that was cut is never joined again (rule R4).
 */
import type pg from "pg";
import { CellError } from "../contract/errors.ts";
import { inTransaction } from "../moving/connection.ts";
import { endSessions, makeSlot } from "../moving/copy-slot.ts";
import type { StoreLogin } from "../moving/ports.ts";
import {
  dropSlot,
  dropSubscription,
  hasPublication,
  hasUsableSlot,
} from "../moving/streams-objects.ts";
import type { Clock } from "../runtime/clock.ts";
import { standbyErrorOf, withKeeper } from "./keeper.ts";
import { makerName, streamName } from "./names.ts";
import type { StandbyPair } from "./ports.ts";
import { holdRecord, readRecord } from "./record.ts";
import {
  addTables,
  dropCopySlots,
  emptyTables,
  isMisfiltered,
  makePublication,
  makeSubscription,
  refreshSubscription,
  removeTables,
  renewSubscription,
} from "./stream.ts";
import { planTables, readSideTables, type TablePlan } from "./tables.ts";

export type StandbyStore = StandbyPair["stores"][number];
export type MakeLimits = { readonly clock: Clock; readonly slotWaitMsMax: number };

type Making = {
  readonly name: string;
  readonly pair: StandbyPair;
  readonly store: StandbyStore;
  readonly limits: MakeLimits;
  /** Under one name, so that whoever comes later ends them. */
  readonly at: <T>(login: StoreLogin, work: (client: pg.Client) => Promise<T>) => Promise<T>;
};

/** Rows of a former stream may be many. */
const statementMsMax = 600_000;

export async function ensureStore(
  pair: StandbyPair,
  store: StandbyStore,
  limits: MakeLimits,
  signal: AbortSignal,
): Promise<void> {
  const making = makingOf(pair, store, limits);
  const { name, at } = making;
  const stands = await takeOver(making);
  signal.throwIfAborted();
  if (!stands) return makeAnew(making, signal);
  await at(store.annex, (client) =>
    renewSubscription(client, name, { annex: pair.annex, publisher: store.origin }),
  );
  signal.throwIfAborted();
  await bringIn(making);
}

/** Of a stream that is there; one that is not is `ensureStore`'s. */
export async function refreshStore(
  pair: StandbyPair,
  store: StandbyStore,
  limits: MakeLimits,
): Promise<void> {
  const making = makingOf(pair, store, limits);
  if (await takeOver(making)) return bringIn(making);
  throw new CellError(
    "STANDBY_BROKEN",
    `Store ${store.name} of cell ${pair.origin} is not followed in standby ${pair.annex}: no table can be brought in`,
    { nextSteps: ["cellctl standby ls"] },
  );
}

function makingOf(pair: StandbyPair, store: StandbyStore, limits: MakeLimits): Making {
  const name = streamName(pair.annex, store.name);
  const options = { name: makerName(name), statementMsMax };
  return { name, pair, store, limits, at: (login, work) => withKeeper(login, options, work) };
}

/** Ends who is at it. Does the whole stream stand? The origin is asked first: without it nothing is touched. */
async function takeOver({ name, pair, store, limits, at }: Making): Promise<boolean> {
  const isPublished = await at(store.origin, async (client) => {
    await endSessions(client, makerName(name), limits.clock);
    return (await hasPublication(client, name)) && (await hasUsableSlot(client, name));
  });
  return at(store.annex, async (client) => {
    await endSessions(client, makerName(name), limits.clock);
    await checkRights(client, store.annex);
    await holdRecord(client, name, pair.annex);
    return isPublished && (await isAttached(client, name));
  });
}

/** One that was being dropped may have let go of its slot. */
async function isAttached(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from pg_subscription s join pg_database d on d.oid = s.subdbid
      where s.subname = $1 and s.subslotname = $1 and d.datname = current_database()`,
    [name],
  );
  return rows.length > 0;
}

/** Found out before the first takeover, not in it. */
async function checkRights(client: pg.Client, login: StoreLogin): Promise<void> {
  const call = "pg_show_replication_origin_status()";
  const { rows } = await client.query<{ may: boolean; role: string }>(
    "select has_function_privilege($1, 'execute') as may, quote_ident(current_user) as role",
    [call],
  );
  if (rows[0]?.may !== false) return;
  throw new CellError(
    "DATABASE_UNFIT",
    `The mover may not see in store ${login.store} of ${login.cell} how far a stream came: without it nobody could say what a failover lost`,
    { nextSteps: [`psql -c "grant execute on function ${call} to ${rows[0].role}"`] },
  );
}

async function makeAnew(
  { name, pair, store, limits, at }: Making,
  signal: AbortSignal,
): Promise<void> {
  const former = await at(store.annex, async (client) => {
    await dropSubscription(client, name, limits.clock);
    return readRecord(client, name);
  });
  signal.throwIfAborted();
  const annexTables = await at(store.annex, (client) => readSideTables(client, name));
  const plan = await at(store.origin, async (client) => {
    await dropSlot(client, name, limits.clock);
    if (former?.subscription != null) {
      const { subscription: oid, systemIdentifier } = former;
      await dropCopySlots(client, { oid, systemIdentifier }, limits.clock);
    }
    const sides = { origin: await readSideTables(client, name), annex: annexTables };
    const wanted = planTables(sides, pair.keyspaces, pair.buckets);
    await makePublication(client, name, wanted.carried);
    return wanted;
  });
  signal.throwIfAborted();
  await slotOf(store.origin, name, limits.slotWaitMsMax);
  signal.throwIfAborted();
  await at(store.annex, (client) =>
    makeSubscription(client, name, { annex: pair.annex, publisher: store.origin }, plan.carried),
  );
}

async function slotOf(login: StoreLogin, name: string, waitMsMax: number): Promise<void> {
  try {
    await makeSlot(login, name, waitMsMax);
  } catch (error) {
    throw standbyErrorOf(login, error);
  }
}

/**
 * A table that was dropped and made anew is another one, though its name is the same: the annex lets go of
 * it first, then its old rows go, then it is shown and copied. Between the last two a crash leaves it
 * shown and not followed, which the next call sees.
 */
async function bringIn(making: Making): Promise<void> {
  const { name, store, at } = making;
  const first = await planNow(making);
  const removed = await at(store.origin, (client) => removeTables(client, name, first.wanted));
  const isStale = first.carried.some((table) => !isShown(table) && table.subscribed);
  if (removed || isStale) {
    await makeRoom(making, first);
    await at(store.annex, (client) => refreshSubscription(client, name));
  }
  const plan = removed || isStale ? await planNow(making) : first;
  const missing = plan.carried.filter((table) => !isShown(table) || !table.subscribed);
  if (missing.length === 0) return;
  await makeRoom(making, plan);
  await at(store.origin, (client) =>
    addTables(
      client,
      name,
      missing.filter((table) => !isShown(table)),
    ),
  );
  await at(store.annex, (client) => refreshSubscription(client, name));
}

const isShown = (table: TablePlan["carried"][number]): boolean =>
  table.published !== "no" && !isMisfiltered(table);

async function planNow({ name, pair, store, at }: Making): Promise<TablePlan> {
  const annex = await at(store.annex, (client) => readSideTables(client, name));
  const origin = await at(store.origin, (client) => readSideTables(client, name));
  return planTables({ origin, annex }, pair.keyspaces, pair.buckets);
}

/** Whatever is about to be copied: no row of it may stand. */
async function makeRoom({ name, pair, store, at }: Making, plan: TablePlan): Promise<void> {
  const coming = plan.carried.filter((table) => !table.subscribed);
  await at(store.annex, (client) =>
    inTransaction(client, async () => {
      await holdRecord(client, name, pair.annex);
      await emptyTables(client, pair.annex, coming);
    }),
  );
}
