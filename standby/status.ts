/**
 * How far a stream is, and whether it goes on by itself. Reads only.
 *
 * What must always be true: an origin that does not answer is no fault of the stream, which goes on when it
 * is back: the annex alone says then what it knows; what is not known is not guessed.
 */
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import type { StoreLogin } from "../moving/ports.ts";
import {
  applyTrouble,
  readSlot,
  readSubscription,
  type Slot,
  type StreamMemory,
  type Subscription,
  slotTrouble,
  subscriptionTrouble,
} from "../moving/streams-state.ts";
import { standbyErrorOf } from "./keeper.ts";
import { streamName } from "./names.ts";
import type { StandbyPair, StandbyStatus } from "./ports.ts";
import { readRecord, type StreamRecord } from "./record.ts";
import type { Sessions } from "./sessions.ts";
import { planTables, readSideTables, type SideTable } from "./tables.ts";
import {
  readUnattended,
  seeUnattended,
  type UnattendedLimits,
  type UnattendedMemory,
} from "./unattended.ts";

type StandbyStore = StandbyPair["stores"][number];

export type StatusMemory = {
  readonly streams: StreamMemory;
  /** By stream, as seen when the origin answered last. */
  readonly uncovered: Map<string, readonly string[]>;
  readonly unattended: UnattendedMemory;
};
export const newStatusMemory = (): StatusMemory => ({
  ...{ streams: new Map(), uncovered: new Map(), unattended: new Map() },
});

type AtAnnex = {
  readonly record: StreamRecord | undefined;
  readonly subscription: Subscription | undefined;
  readonly tables: readonly SideTable[];
  readonly copying: readonly string[];
  /** Of those that were begun: nobody is at it now. */
  readonly unattended: readonly string[];
  readonly copyErrors: number;
  readonly heartbeatAgeMs: number | null;
};
type AtOrigin = {
  readonly slot: Slot | undefined;
  readonly isPublished: boolean;
  readonly tables: readonly SideTable[];
};

export async function readStore(
  pair: StandbyPair,
  store: StandbyStore,
  {
    sessions,
    memory,
    nowMs,
    limits,
  }: {
    readonly sessions: Sessions;
    readonly memory: StatusMemory;
    /** Monotonic. */
    readonly nowMs: () => number;
    readonly limits: UnattendedLimits;
  },
): Promise<StandbyStatus> {
  const name = streamName(pair.annex, store.name);
  const [inAnnex, atOrigin] = await Promise.all([
    look(sessions, store.annex, (client) => readAnnex(client, name, pair.origin)),
    look(sessions, store.origin, (client) => readOrigin(client, name)).catch((error: unknown) => {
      if (error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE")
        return undefined;
      throw error;
    }),
  ]);
  if (atOrigin !== undefined) {
    const sides = { origin: atOrigin.tables, annex: inAnnex.tables };
    memory.uncovered.set(name, uncoveredIn(sides, pair, atOrigin.isPublished));
  }
  // Without its origin nobody could go on: that says nothing.
  const tables = atOrigin === undefined ? [] : inAnnex.unattended;
  const left = seeUnattended(memory.unattended, name, { tables, nowMs: nowMs() }, limits);
  return {
    ...phaseOf(name, store, { ...inAnnex, unattended: left }, atOrigin, memory.streams),
    lagBytes: atOrigin?.slot?.lag ?? null,
    heartbeatAgeMs: inAnnex.heartbeatAgeMs,
    uncovered: memory.uncovered.get(name) ?? [],
  };
}

/** The worst of several: a cell is protected when all of its stores are. */
export function worstOf(states: readonly StandbyStatus[]): StandbyStatus {
  const phases = states.map(({ phase }) => phase);
  const lags = states.map(({ lagBytes }) => lagBytes);
  const ages = states.flatMap(({ heartbeatAgeMs: age }) => (age === null ? [] : [age]));
  return {
    phase: worstFirst.find((phase) => phases.includes(phase)) ?? "absent",
    reason: [...new Set(states.flatMap(({ reason }) => (reason === "" ? [] : [reason])))].join(
      "; ",
    ),
    lagBytes: lags.includes(null) ? null : Math.max(0, ...lags.map(Number)),
    heartbeatAgeMs: ages.length === 0 ? null : Math.max(...ages),
    uncovered: [...new Set(states.flatMap(({ uncovered }) => uncovered))],
  };
}

const worstFirst: ReadonlyArray<StandbyStatus["phase"]> = [
  "stopped",
  "absent",
  "copying",
  "severed",
  "streaming",
];

async function look<T>(
  sessions: Sessions,
  login: StoreLogin,
  read: (client: Queryable) => Promise<T>,
): Promise<T> {
  try {
    return await sessions.use(login, read);
  } catch (error) {
    throw standbyErrorOf(login, error);
  }
}

const stateSchema = z.object({
  copying: z.array(z.string()),
  copyErrors: z.number(),
  age: z.number().nullable(),
});

async function readAnnex(client: Queryable, name: string, origin: string): Promise<AtAnnex> {
  const { rows } = await client.query<{ state: unknown }>(
    `select jsonb_build_object('age', cellfleet.heartbeat_age_ms($2),
              'copyErrors', coalesce((select t.sync_error_count from pg_stat_subscription_stats t where t.subname = $1), 0),
              'copying', (select coalesce(jsonb_agg(r.srrelid::regclass::text order by 1), '[]')
                 from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
                where s.subname = $1 and r.srsubstate <> 'r')) as state`,
    [name, origin],
  );
  const { copying, copyErrors, age } = stateSchema.parse(rows[0]?.state);
  return {
    record: await readRecord(client, name),
    subscription: await readSubscription(client, name),
    tables: await readSideTables(client, name),
    unattended: copying.length === 0 ? [] : await readUnattended(client, name),
    ...{ copying, copyErrors, heartbeatAgeMs: age },
  };
}

async function readOrigin(client: Queryable, name: string): Promise<AtOrigin> {
  const { rows } = await client.query("select from pg_publication where pubname = $1", [name]);
  return {
    slot: await readSlot(client, name),
    isPublished: rows.length > 0,
    tables: await readSideTables(client, name),
  };
}

function uncoveredIn(
  sides: { readonly origin: readonly SideTable[]; readonly annex: readonly SideTable[] },
  { keyspaces, buckets }: StandbyPair,
  isPublished: boolean,
): readonly string[] {
  const { carried, uncovered } = planTables(sides, keyspaces, buckets);
  if (!isPublished) return uncovered;
  const late = carried.filter(({ published, subscribed }) => published === "no" || !subscribed);
  return [...uncovered, ...late.map(({ label }) => `${label} (it came after the stream began)`)];
}

function phaseOf(
  name: string,
  { origin, annex }: StandbyStore,
  { record, subscription, copying, copyErrors, unattended }: AtAnnex,
  atOrigin: AtOrigin | undefined,
  memory: StreamMemory,
): Pick<StandbyStatus, "phase" | "reason"> {
  if (record?.state === "severed") return { phase: "severed", reason: "" };
  if (record?.state === "severing") {
    return {
      phase: "stopped",
      reason: `the cut of ${name} in ${annex.cell} was begun and not ended`,
    };
  }
  // Somebody may be making it for the first time.
  if (record?.subscription == null && subscription === undefined)
    return { phase: "absent", reason: "" };
  const trouble =
    subscriptionTrouble(subscription, name, annex) ??
    (atOrigin === undefined
      ? undefined
      : (slotTrouble(atOrigin.slot, name, origin) ??
        (atOrigin.isPublished
          ? undefined
          : `publication ${name} is gone from cell ${origin.cell}, store ${origin.store}`) ??
        applyTrouble({ name, subscriber: annex }, atOrigin.slot, subscription, memory) ??
        copyTrouble(`${name} in ${annex.cell}`, { copying, copyErrors }, memory) ??
        unattendedTrouble(`${name} in ${annex.cell}`, unattended)));
  if (trouble !== undefined) return { phase: "stopped", reason: trouble };
  return copying.length === 0
    ? { phase: "streaming", reason: "" }
    : { phase: "copying", reason: `copying ${copying.join(", ")}` };
}

const unattendedTrouble = (name: string, tables: readonly string[]): string | undefined =>
  tables.length === 0
    ? undefined
    : `the copy of ${tables.join(", ")} was cut off, and no worker goes on with it for ${name}`;

const copyErrorsMax = 3;

/** PostgreSQL begins a failed copy again and again. A lost connection may fail one, too. */
function copyTrouble(
  name: string,
  { copying, copyErrors }: Pick<AtAnnex, "copying" | "copyErrors">,
  memory: StreamMemory,
): string | undefined {
  const place = copying.join(", ");
  const key = `${name} copy`;
  const seen = memory.get(key);
  if (place === "" || seen?.place !== place || seen.errors > copyErrors) {
    memory.set(key, { errors: copyErrors, place });
    return undefined;
  }
  return copyErrors - seen.errors < copyErrorsMax
    ? undefined
    : `the copy of ${place} fails again and again for ${name}; the log of that server says why`;
}
