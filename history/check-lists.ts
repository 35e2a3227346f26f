/**
 * Rule 4 of the checker: reads of a tenant's list must be prefixes of one order in which it grew.
 *
 * A read shows a set of items (of its newest part, if it says from where on). What somebody was told of
 * before the read began must be in it: by an acknowledgement or by another read (`stale-read`; `went-back`
 * if the reader itself had seen it). The same holds for what was known before a write began that the read
 * shows. Of two reads at the same time one must contain the other (`forked-read`). Ids of different cells
 * say nothing of order, so none is taken from them.
 *
 * What an RPO report names or a salvage file holds may vanish. One read costs what it shows, and what else is known of that part.
 */
import type { EntryOf, Violation } from "./model.ts";

/** Judged in the end, when it is known which writes a report names. */
export type Finding = (isReported: (value: string) => boolean) => Violation | undefined;

export type Lists = {
  /** Somebody was told that the value is there. */
  readonly told: (item: {
    readonly tenant: string;
    readonly value: string;
    readonly ref: string;
    readonly at: number;
  }) => void;
  readonly begun: (read: {
    readonly tenant: string;
    readonly process: string;
    readonly at: number;
  }) => void;
  /** It ended without an answer. */
  readonly given: (process: string) => void;
  /** `sentAt`: when the write of a shown value began. */
  readonly listed: (
    entry: EntryOf<"listed">,
    sentAt: (value: string) => number,
  ) => readonly Finding[];
};

type Known = {
  readonly value: string;
  readonly order: number;
  readonly toldAt: number;
};
type Read = {
  readonly process: string;
  readonly beganAt: number;
  readonly endedAt: number;
  readonly from: number | null;
  /** From value to ref. */
  readonly seen: ReadonlyMap<string, number>;
};
type List = {
  readonly known: Map<string, Known>;
  /** The same, by ref: a read of a part looks at that part alone. */
  readonly byOrder: Known[];
  readonly open: Map<string, number>;
  /** Ended reads that may have been under way together with one that is still open. */
  recent: Read[];
};

/** Of one tenant: more reads at the same time than this are not compared with each other. */
const recentMax = 500;

export function createLists(): Lists {
  const lists = new Map<string, List>();
  const tenantOf = new Map<string, string>();
  const lastOf = new Map<string, ReadonlyMap<string, number>>();

  function listOf(tenant: string): List {
    const list = lists.get(tenant) ?? {
      known: new Map<string, Known>(),
      byOrder: [],
      open: new Map<string, number>(),
      recent: [],
    };
    lists.set(tenant, list);
    return list;
  }

  return {
    told: ({ tenant, value, ref, at }) =>
      learn(listOf(tenant), { value, order: Number(ref), toldAt: at }),
    begun: ({ tenant, process, at }) => {
      listOf(tenant).open.set(process, at);
      tenantOf.set(process, tenant);
    },
    given: (process) => {
      const list = listOf(tenantOf.get(process) ?? "");
      list.open.delete(process);
      forgetOld(list);
    },
    listed: (entry, sentAt) => {
      const { process, from, at: endedAt } = entry;
      const tenant = tenantOf.get(process) ?? "";
      const list = listOf(tenant);
      const beganAt = list.open.get(process) ?? endedAt;
      const seen = new Map(entry.seen.map(({ value, ref }) => [value, Number(ref)]));
      const read: Read = { process, beganAt, endedAt, from, seen };
      const last = lastOf.get(`${tenant} ${process}`);
      const findings = [
        ...findMissing(list, { tenant, read, sentAt, last }),
        ...list.recent.flatMap((other) => findFork(tenant, read, other)),
      ];
      for (const [value, order] of seen) {
        learn(list, { value, order, toldAt: endedAt });
      }
      lastOf.set(`${tenant} ${process}`, seen);
      list.open.delete(process);
      list.recent.push(read);
      forgetOld(list);
      return list.recent.length > recentMax ? [...findings, tooMany(tenant, list)] : findings;
    },
  };
}

function learn(list: List, known: Known): void {
  if (list.known.has(known.value)) return; // Who was told first counts.
  list.known.set(known.value, known);
  if (!Number.isFinite(known.order)) return;
  list.byOrder.splice(indexFrom(list.byOrder, known.order), 0, known);
}

/** The first place whose ref is at least this. */
function indexFrom(sorted: readonly Known[], order: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle]?.order ?? 0) < order) low = middle + 1;
    else high = middle;
  }
  return low;
}

function findMissing(
  list: List,
  {
    tenant,
    read,
    sentAt,
    last,
  }: {
    readonly tenant: string;
    readonly read: Read;
    readonly sentAt: (value: string) => number;
    readonly last: ReadonlyMap<string, number> | undefined;
  },
): readonly Finding[] {
  const { seen, from, process, beganAt } = read;
  // Where the read shows a write, it must show all that was known when that write began.
  const knownBefore = [...seen.keys()].reduce(
    (most, value) => Math.max(most, sentAt(value)),
    beganAt,
  );
  const part =
    from === null ? list.known.values() : list.byOrder.slice(indexFrom(list.byOrder, from));
  const missing: string[] = [];
  for (const { value, toldAt } of part) {
    if (toldAt < knownBefore && !seen.has(value)) missing.push(value);
  }
  if (missing.length === 0) return [];
  return [
    (isReported) => {
      const [value, ...more] = missing.filter((one) => !isReported(one));
      if (value === undefined) return undefined;
      const went = last?.has(value) === true;
      const told = went ? `${process} itself had seen it` : "somebody had been told of it before";
      return {
        kind: went ? "went-back" : "stale-read",
        tenant,
        value,
        text: `is missing in a read of ${process} at ${read.endedAt}, although ${told}${andMore(more)}`,
      };
    },
  ];
}

function findFork(tenant: string, read: Read, other: Read): readonly Finding[] {
  if (other.endedAt < read.beganAt) return []; // Not at the same time: findMissing judges it.
  const only = lacking(other, read);
  const elsewhere = lacking(read, other);
  if (only.length === 0 || elsewhere.length === 0) return [];
  return [
    (isReported) => {
      const value = only.find((one) => !isReported(one));
      const counterpart = elsewhere.find((one) => !isReported(one));
      if (value === undefined || counterpart === undefined) return undefined;
      return {
        kind: "forked-read",
        tenant,
        value,
        text: `was read by ${read.process} without ${counterpart}, and ${counterpart} by ${other.process} without it`,
      };
    },
  ];
}

/** What `has` shows, and `lacks` does not although it speaks of that part. */
const lacking = (lacks: Read, has: Read): string[] =>
  [...has.seen].flatMap(([value, order]) =>
    !lacks.seen.has(value) && (lacks.from === null || order >= lacks.from) ? [value] : [],
  );

function forgetOld(list: List): void {
  const oldest = [...list.open.values()].reduce((least, at) => Math.min(least, at), Infinity);
  list.recent = list.recent.filter(({ endedAt }) => endedAt >= oldest);
}

function tooMany(tenant: string, list: List): Finding {
  list.recent = list.recent.slice(-recentMax);
  return () => ({
    kind: "undecided",
    tenant,
    value: "",
    text: `more than ${recentMax} reads ended while one was open: not all were compared`,
  });
}

const andMore = (more: readonly string[]): string =>
  more.length === 0 ? "" : `; so are ${more.length} more`;
