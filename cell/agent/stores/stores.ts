/**
 * All stores of the cell, as one: where an application keeps tenants in several databases, they are
 * served, fenced, leased and purged together.
 *
 * Always true: what is told as applied every store has applied; an answer of the control plane goes to
 * each store with the facts that were read in that store before the call; a store that is out of sight
 * makes the whole cell unreachable, and whoever does not hold the lock of every store is not primary.
 */
import type pg from "pg";
import type { AgentSyncResponse } from "../../../contract/cell-protocol.ts";
import type { CellId } from "../../../contract/ids.ts";
import type { CellStage } from "../../../contract/routing-table.ts";
import { defaultService } from "../../../contract/service-route.ts";
import { must } from "../../../runtime/assert.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Lifecycle } from "../../../runtime/lifecycle.ts";
import type { Random } from "../../../runtime/random.ts";
import { type DatabaseFacts, readFacts } from "../../store/facts.ts";
import { type LowRange, readHeldRanges, readLowRanges } from "../../store/id-ranges.ts";
import { listOwnership } from "../../store/ownership.ts";
import { readTenantSizes, type TenantSize } from "../../store/stats.ts";
import { type Unclassed, unclassedNamesMax } from "../../store/table-classes.ts";
import type { AgentLog } from "../events.ts";
import type { Gate } from "../gate.ts";
import type { Obeyed, Refused } from "../obedience.ts";
import type { Purged } from "../purger.ts";
import type { WouldRefuse } from "../would-refuse.ts";
import { factsOfAll } from "./facts-of-all.ts";
import { nameInCell, nameInStore } from "./names.ts";
import { duePurges, purgesReported } from "./purges.ts";
import { type ReadKeys, readKeysOfAll } from "./report-of-all.ts";
import { openStore, type Store } from "./store.ts";
import {
  type LeaseView,
  leaseOf,
  type OwnershipView,
  ownershipOf,
  type StageView,
  stageOf,
} from "./views.ts";

/** Read in every store at one time. */
export type Facts = {
  /** As the cell presents them. */
  readonly cell: DatabaseFacts;
  /** Of each store, in their order. */
  readonly each: readonly DatabaseFacts[];
};
export type IdNeeds = {
  readonly low: readonly LowRange[];
  readonly held: readonly { readonly sequence: string; readonly max: number }[];
};

export type Stores = {
  readonly first: Store;
  readonly lease: LeaseView;
  readonly ownership: OwnershipView;
  readonly stage: StageView;
  readonly primary: () => boolean;
  readonly connected: () => boolean;
  /** Of several stores those whose keys were read too long ago, by name. */
  readonly outOfSight: () => readonly string[];
  /** What was read last, also of stores that are out of reach now. */
  readonly facts: () => Facts | undefined;
  /** Resolves after a reading of every store that began after this call, or after a bounded time. */
  readonly look: () => Promise<void>;
  readonly readFacts: () => Promise<Facts>;
  readonly readIdNeeds: () => Promise<IdNeeds>;
  /** Undefined: some store could not be looked at; nothing is claimed. */
  readonly readUnclassed: () => Promise<Unclassed | undefined>;
  readonly readKeys: ReadKeys;
  readonly readTenantSizes: () => Promise<readonly TenantSize[]>;
  readonly obey: (answer: AgentSyncResponse, facts: Facts, sentMonoMs: number) => Promise<Obeyed>;
  /** The same in each, at one time; rejects when one of them does, after all are done. */
  readonly inAll: <T>(work: (pool: pg.Pool, at: number) => Promise<T>) => Promise<readonly T[]>;
  /** A lease that stands in the store's database since this moment. */
  readonly takeLease: (at: number, grant: Parameters<Store["lease"]["take"]>[0]) => void;
  readonly purges: {
    readonly due: () => Purged[];
    readonly reported: (purged: readonly Purged[]) => void;
  };
};

export type StoresOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly instance: string;
  readonly databaseUrl: string;
  /** Of the further stores, by name. */
  readonly others: readonly { readonly name: string; readonly databaseUrl: string }[];
  readonly gate: Gate;
  readonly wouldRefuse: WouldRefuse;
  readonly onNews: () => void;
  /** Some store says something else of its keys, or has opened a gate. */
  readonly onOwnership: () => void;
};

export function openStores(options: StoresOptions, lifecycle: Lifecycle): Stores {
  const { log } = options;
  const all: Store[] = [];
  let stageBefore: CellStage = "enforce";
  const open = (name: string, databaseUrl: string): Store => {
    const index = all.length;
    const store = openStore(
      {
        ...{ ...options, name, databaseUrl },
        wouldRefuse: index === 0 ? options.wouldRefuse : undefined,
        mayLead: () => mayLead(all, index),
        isPrimary: () => stores.primary(),
        onNews: () => {
          options.onNews();
          // A lock that was gained or lost lets another store be asked for its own.
          for (const other of all) if (other !== store) other.session.wake();
        },
        onStage: () => {
          const now = stores.stage.now;
          if (now !== stageBefore) log.event("stage.changed", { from: stageBefore, to: now });
          stageBefore = now;
        },
      },
      lifecycle,
    );
    all.push(store);
    return store;
  };
  const first = open("", options.databaseUrl);
  const others = options.others.map(({ name, databaseUrl }) => open(name, databaseUrl));
  const stores = asOne([first, ...others], options.clock);
  return stores;
}

/** All locks or none: an agent that cannot reach one store leaves the others to an agent that can. */
function mayLead(all: readonly Store[], index: number): boolean {
  return all.every(({ session }, at) => {
    if (at === index) return true;
    // In one order for all agents, or two of them would hold one lock each.
    return session.connected() && (at > index || session.primary());
  });
}

function asOne(all: readonly [Store, ...Store[]], clock: Clock): Stores {
  const [first, ...others] = all;
  const factsFrom = (each: readonly DatabaseFacts[]): Facts | undefined => {
    const named = all.flatMap(({ name }, at) => {
      const facts = each[at];
      return facts === undefined ? [] : [{ name, facts }];
    });
    const [one, ...more] = named;
    if (one === undefined || named.length < all.length) return undefined;
    return { cell: factsOfAll([one, ...more]), each };
  };
  return {
    first,
    lease: leaseOf([first.lease, ...others.map(({ lease }) => lease)]),
    ownership: ownershipOf([first.cache, ...others.map(({ cache }) => cache)]),
    stage: stageOf([first.stage, ...others.map(({ stage }) => stage)]),
    primary: () => all.every(({ session }) => session.primary()),
    connected: () => all.every(({ session }) => session.connected()),
    outOfSight: () =>
      others.length === 0
        ? []
        : all
            .filter(({ cache }) => !cache.isFresh(clock.monotonicMs()))
            .map(({ name }) => name || defaultService),
    facts: () => factsFrom(all.flatMap(({ session }) => session.facts() ?? [])),
    look: async () => {
      await Promise.all(all.map(({ session }) => session.look()));
    },
    readFacts: async () => {
      const each = await Promise.all(all.map(({ pool }) => readFacts(pool)));
      return must(factsFrom(each), "facts of every store");
    },
    readIdNeeds: () => readIdNeeds(all),
    readUnclassed: () => readUnclassed(all),
    readKeys: (after, limit) =>
      readKeysOfAll(
        all.map(
          ({ pool }): ReadKeys =>
            (from, count) =>
              listOwnership(pool, from, count),
        ),
        after,
        limit,
      ),
    readTenantSizes: async () =>
      addSizes(await Promise.all(all.map(({ pool }) => readTenantSizes(pool)))),
    obey: (answer, facts, sentMonoMs) => obeyInAll(all, answer, facts, sentMonoMs),
    inAll: async (work) =>
      valuesOf(await Promise.allSettled(all.map(({ pool }, at) => work(pool, at)))),
    takeLease: (at, grant) => all[at]?.lease.take(grant),
    purges: { due: () => duePurges(all), reported: (purged) => purgesReported(all, purged) },
  };
}

/** Every store gets its part, also when another one cannot take its own: the next call brings that again. */
async function obeyInAll(
  all: readonly Store[],
  answer: AgentSyncResponse,
  facts: Facts,
  sentMonoMs: number,
): Promise<Obeyed> {
  const ends = await Promise.allSettled(
    all.map((store, at) =>
      store.obey(answerFor(store, answer), must(facts.each[at], "facts of the store"), sentMonoMs),
    ),
  );
  const obeyed = valuesOf(ends);
  return {
    refused: refusedOnce(obeyed.flatMap(({ refused }) => refused)),
    busy: obeyed.some(({ busy }) => busy),
  };
}

function valuesOf<T>(ends: ReadonlyArray<PromiseSettledResult<T>>): T[] {
  return ends.map((end) => {
    if (end.status === "rejected") throw end.reason;
    return end.value;
  });
}

/** A key that several stores refused is told once, with the highest epoch that stands in its way. */
function refusedOnce(all: readonly Refused[]): readonly Refused[] {
  const keys = new Map<string, Refused>();
  for (const one of all) {
    const known = keys.get(one.key);
    if (known === undefined || known.epoch < one.epoch) keys.set(one.key, one);
  }
  return [...keys.values()];
}

/** Its own ids only, by their own names; and what concerns the cell as a whole is told once. */
function answerFor(store: Store, answer: AgentSyncResponse): AgentSyncResponse {
  const idRanges = answer.idRanges.flatMap((range) => {
    const sequence = nameInStore(store.name, range.sequence);
    return sequence === undefined ? [] : [{ ...range, sequence }];
  });
  if (store.name === "") return { ...answer, idRanges };
  const { leaseRefused: _told, ...rest } = answer;
  return { ...rest, idRanges };
}

async function readIdNeeds(all: readonly Store[]): Promise<IdNeeds> {
  const needs = await Promise.all(
    all.map(async ({ name, pool }) => {
      const qualified = <T extends { readonly sequence: string }>(one: T): T => ({
        ...one,
        sequence: nameInCell(name, one.sequence),
      });
      const low = await readLowRanges(pool);
      const held = await readHeldRanges(pool);
      return { low: low.map(qualified), held: held.map(qualified) };
    }),
  );
  return { low: needs.flatMap(({ low }) => low), held: needs.flatMap(({ held }) => held) };
}

async function readUnclassed(all: readonly Store[]): Promise<Unclassed | undefined> {
  const found = await Promise.all(all.map(({ coverage }) => coverage.look()));
  const names: string[] = [];
  let count = 0;
  for (const [at, { name }] of all.entries()) {
    const one = found[at];
    if (one === undefined) return undefined;
    count += one.count;
    names.push(...one.names.map((table) => nameInCell(name, table)));
  }
  return { count, names: names.slice(0, unclassedNamesMax) };
}

/** A tenant's rows in all stores together. */
function addSizes(all: ReadonlyArray<readonly TenantSize[]>): readonly TenantSize[] {
  const [first = []] = all;
  if (all.length === 1) return first;
  const sums = new Map<string, TenantSize>();
  for (const size of all.flat()) {
    const name = `${size.keyspace}/${size.tenant}`;
    const { rows = 0, bytes = 0 } = sums.get(name) ?? {};
    sums.set(name, { ...size, rows: rows + size.rows, bytes: bytes + size.bytes });
  }
  return [...sums.values()];
}
