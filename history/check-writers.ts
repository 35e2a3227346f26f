/**
 * Rule 3 of the checker: who wrote, under which epoch, and who was allowed to.
 *
 * Evidence of writing is a commit in a cell's log or an acknowledgement that names the cell. Commits that a
 * salvage file holds, and that were never acknowledged, are excused: a dying cell may commit what nobody
 * was told of.
 */
import type { EntryOf, Violation } from "./model.ts";

export type Writers = {
  readonly acknowledged: (write: {
    readonly tenant: string;
    readonly cell: string;
    readonly epoch: number;
    readonly value: string;
  }) => void;
  readonly committed: (entry: EntryOf<"commit">) => void;
  /** Entries come in order of revision. */
  readonly owner: (entry: EntryOf<"owner">) => Violation[];
  /** A client was answered, whatever it had asked. */
  readonly answered: (by: {
    readonly tenant: string;
    readonly cell: string;
    readonly epoch: number;
  }) => void;
  /** The highest epoch that a client was answered under for the tenant so far; 0 before the first. */
  readonly answeredEpoch: (tenant: string) => number;
  /** Cells whose log holds the value. */
  readonly committers: (value: string) => readonly string[];
  readonly faults: (isSalvaged: (cell: string, value: string) => boolean) => Violation[];
};

/** What one cell wrote for one tenant under one epoch. */
type Evidence = { readonly acknowledged: Set<string>; readonly committed: Set<string> };
type Term = {
  readonly tenant: string;
  readonly epoch: number;
  readonly cells: Map<string, Evidence>;
};

export function createWriters(): Writers {
  const terms = new Map<string, Term>();
  const owners = new Map<string, EntryOf<"owner">>();
  const newest = new Map<string, EntryOf<"owner">>();
  const highest = new Map<string, number>();
  /** One per tenant, epoch and cell. */
  const answers = new Map<string, { tenant: string; cell: string; epoch: number }>();
  const cellsOfValue = new Map<string, string[]>();

  function evidence(tenant: string, epoch: number, cell: string): Evidence {
    const key = `${tenant} ${epoch}`;
    const term = terms.get(key) ?? { tenant, epoch, cells: new Map<string, Evidence>() };
    terms.set(key, term);
    const one = term.cells.get(cell) ?? { acknowledged: new Set(), committed: new Set() };
    term.cells.set(cell, one);
    return one;
  }

  return {
    acknowledged: ({ tenant, cell, epoch, value }) => {
      evidence(tenant, epoch, cell).acknowledged.add(value);
    },
    committed: ({ tenant, cell, epoch, value }) => {
      evidence(tenant, epoch, cell).committed.add(value);
      cellsOfValue.set(value, [...(cellsOfValue.get(value) ?? []), cell]);
    },
    owner: (entry) => {
      const before = newest.get(entry.tenant);
      newest.set(entry.tenant, entry);
      owners.set(`${entry.tenant} ${entry.epoch}`, entry);
      return ownershipFaults(before, entry);
    },
    answered: (by) => {
      highest.set(by.tenant, Math.max(highest.get(by.tenant) ?? 0, by.epoch));
      answers.set(`${by.tenant} ${by.epoch} ${by.cell}`, by);
    },
    answeredEpoch: (tenant) => highest.get(tenant) ?? 0,
    committers: (value) => cellsOfValue.get(value) ?? [],
    faults: (isSalvaged) => [
      ...[...terms.values()].flatMap((term) =>
        termFaults(term, owners.get(`${term.tenant} ${term.epoch}`)?.cell, isSalvaged),
      ),
      // Whoever wrote is judged above; this is about cells that only answered reads.
      ...[...answers.values()].flatMap(({ tenant, epoch, cell }): Violation[] => {
        const owner = owners.get(`${tenant} ${epoch}`)?.cell;
        const wrote = terms.get(`${tenant} ${epoch}`)?.cells.has(cell) === true;
        if (owner === undefined || owner === cell || wrote) return [];
        const text = `${cell} answered under epoch ${epoch}, which belongs to ${owner}`;
        return [{ kind: "not-the-owner", tenant, value: "", text }];
      }),
    ],
  };
}

function ownershipFaults(before: EntryOf<"owner"> | undefined, now: EntryOf<"owner">): Violation[] {
  if (before === undefined) return [];
  const { tenant, epoch, cell, revision } = now;
  const fault = (kind: Violation["kind"], text: string) => [{ kind, tenant, value: "", text }];
  if (revision < before.revision) {
    return fault("malformed", `owners are out of order: ${before.revision}, then ${revision}`);
  }
  if (epoch < before.epoch) {
    return fault("epoch-fell", `from ${before.epoch} to ${epoch} at revision ${revision}`);
  }
  return epoch === before.epoch && cell !== before.cell
    ? fault("two-writers", `epoch ${epoch} was given to ${before.cell} and to ${cell}`)
    : [];
}

function termFaults(
  { tenant, epoch, cells }: Term,
  owner: string | undefined,
  isSalvaged: (cell: string, value: string) => boolean,
): Violation[] {
  const writers = [...cells]
    .map(([cell, { acknowledged, committed }]) => ({
      cell,
      values: [
        ...new Set([
          ...acknowledged,
          ...[...committed].filter((value) => acknowledged.has(value) || !isSalvaged(cell, value)),
        ]),
      ],
    }))
    .filter(({ values }) => values.length > 0);
  // Under epoch 0 nobody owns anything: whoever wrote is a stranger.
  const nobody = epoch === 0 ? "nobody" : undefined;
  const rightful = nobody ?? owner;
  const strangers = rightful === undefined ? [] : writers.filter(({ cell }) => cell !== rightful);
  const faults: Violation[] = strangers.map(({ cell, values }) => ({
    kind: "not-the-owner",
    tenant,
    value: values[0] ?? "",
    text: `${cell} wrote ${listed(values)} under epoch ${epoch}, which belongs to ${rightful}`,
  }));
  if (writers.length < 2) return faults;
  const who = writers.map(({ cell, values }) => `${cell} wrote ${listed(values)}`).join("; ");
  return [
    ...faults,
    {
      kind: "two-writers",
      tenant,
      value: writers[1]?.values[0] ?? "",
      text: `${writers.length} cells wrote under epoch ${epoch}: ${who}`,
    },
  ];
}

const namedMax = 5;
const listed = (values: readonly string[]): string =>
  values.length <= namedMax
    ? values.join(", ")
    : `${values.slice(0, namedMax).join(", ")} and ${values.length - namedMax} more`;
