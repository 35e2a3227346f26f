/**
 * The routing table in memory: built from a snapshot, moved on by deltas, asked on every request.
 *
 * What must always be true:
 * - No reader sees half of a change. A delta is checked completely (revision, keys, checksum) before
 *   anything is touched, then applied in one synchronous run that cannot fail.
 * - A refused delta leaves the table exactly as it was.
 * - A tenant's own placement stands above the slot or range that contains it.
 * - Names of tenants change together with the placements, and the checksum covers them.
 *
 * Routers and the control plane's publisher use the same code, so that both mean the same table.
 */
import { type AliasHasher, createAliasHasher, normaliseAlias } from "./alias.ts";
import { AliasIndex, type AliasPlan, type AliasTarget } from "./alias-index.ts";
import type { HashKey } from "./half-sip-hash.ts";
import type { CellId, KeyspaceName, Revision, TenantId } from "./ids.ts";
import { type FoundRoute, lookupIn, type Owners, type Route, splitKey } from "./keyspace-routes.ts";
import type { PlacementKey } from "./placement-key.ts";
import { type PlacementPlan, Placements } from "./placements.ts";
import type {
  AliasGroup,
  DeltaBody,
  PlacementGroup,
  RoutedCell,
  RoutedKeyspace,
  SnapshotHead,
} from "./routing-table.ts";
import type { SharedTable } from "./shared-table.ts";
import { addSums, mixLists, type Sum, sumText, type TableLists } from "./table-checksum.ts";
import { listsAfter, optionalLists } from "./table-lists.ts";
import { listsProblem, wantedEdits } from "./table-problems.ts";

export type TableHead = Omit<SnapshotHead, "kind" | "version" | "placements" | "aliases">;

export const tableRefusals = ["other-fleet", "gap", "invalid", "drift"] as const;
export type TableRefusalReason = (typeof tableRefusals)[number];
export type TableRefusal = {
  readonly kind: "refused";
  readonly reason: TableRefusalReason;
  readonly text: string;
};

const refused = (reason: TableRefusalReason, text: string): TableRefusal => ({
  kind: "refused",
  reason,
  text,
});

export const isTableRefusal = (value: object): value is TableRefusal =>
  "kind" in value && value.kind === "refused";

/** A delta before its checksum is known, as a publisher has it. */
export type TableChange = Omit<DeltaBody, "checksum">;

export class TableState {
  readonly fleet: string;
  #revision: Revision;
  #lists: TableLists;
  #listsSum: Sum;
  #placements: Placements;
  #cells: ReadonlyMap<CellId, RoutedCell>;
  readonly #hashKey: HashKey;
  #aliases = new AliasIndex();
  #hasher: { readonly salt: string; readonly hash: AliasHasher } | undefined;
  readonly #changedOwner = new Map<CellId, Revision>();

  /** Made by `startTable`, which has checked the lists. */
  constructor(head: TableHead, hashKey: HashKey) {
    const { fleet, revision, tenantSources, serviceRoutes, keyspaces, cells } = head;
    this.fleet = fleet;
    this.#revision = revision;
    this.#lists = { tenantSources, serviceRoutes, keyspaces, cells, ...optionalLists(head) };
    this.#listsSum = mixLists(this.#lists);
    this.#cells = cellMap(cells);
    this.#placements = new Placements(hashKey);
    this.#placements.setKeyspaces(keyspaces);
    this.#hashKey = hashKey;
  }

  get revision(): Revision {
    return this.#revision;
  }
  /** All that travels whole: sources, routes, keyspaces, cells; a new object after each change of one. */
  get lists(): TableLists {
    return this.#lists;
  }
  /** Number of placements. */
  get size(): number {
    return this.#placements.size;
  }
  /** Names of tenants: pairs of name and tenant. */
  get aliasCount(): number {
    return this.#aliases.size;
  }
  /** The highest epoch this table has ever held; 0 while it is empty. */
  get epochMax(): number {
    return this.#placements.epochMax;
  }
  /** 16 hex digits. */
  get checksum(): string {
    return sumText(addSums(addSums(this.#listsSum, this.#placements.sum), this.#aliases.sum));
  }

  /** Of the arrays that hold tenants and their names. */
  get bytes(): number {
    return this.#placements.bytes + this.#aliases.bytes;
  }
  /** Grows when the changes have become a new image; whoever shares this table shares it anew then. */
  get generation(): number {
    return this.#placements.generation;
  }

  cell(id: CellId): RoutedCell | undefined {
    return this.#cells.get(id);
  }

  keyspace(name: KeyspaceName): RoutedKeyspace | undefined {
    return this.#placements.routes(name)?.keyspace;
  }

  /** The placement that decides for a tenant. Undefined: no such keyspace, or nobody owns the tenant. */
  lookup(keyspace: KeyspaceName, tenant: TenantId): FoundRoute | undefined {
    const routes = this.#placements.routes(keyspace);
    return routes && lookupIn(routes, tenant);
  }

  /** The tenants that a name stands for; none where namespace or name are unknown. */
  resolve(namespace: string, name: string): readonly AliasTarget[] {
    const { aliasing } = this.#lists;
    const space = aliasing?.namespaces.find((one) => one.name === namespace);
    if (aliasing === undefined || space === undefined || this.#aliases.size === 0) return [];
    const spelled = normaliseAlias(name, space.fold);
    if (spelled === undefined) return [];
    const { salt } = aliasing;
    if (this.#hasher?.salt !== salt) this.#hasher = { salt, hash: createAliasHasher(salt) };
    return this.#aliases.lookup(namespace, this.#hasher.hash(namespace, spelled));
  }

  /** The placement of exactly this key, whatever contains it. */
  get(key: PlacementKey): Route | undefined {
    const at = splitKey(key);
    return at === undefined ? undefined : this.#placements.routeAt(at);
  }

  /** Who owns anything; the same object until a placement changes. */
  owners(): Owners {
    return this.#placements.owners();
  }

  /** Cells that lost or gained a placement in a change after `revision`. */
  changedOwner(revision: Revision): CellId[] {
    return [...this.#changedOwner].flatMap(([cell, at]) => (at > revision ? [cell] : []));
  }

  /** All placements in bulk, as a snapshot carries them: the same table gives the same groups, in any order. */
  groups(valuesMax = 10_000): Generator<PlacementGroup> {
    return this.#placements.groups(valuesMax);
  }

  /** All names in bulk, as a snapshot carries them, in any order. */
  aliasGroups(namesMax = 10_000): Generator<AliasGroup> {
    return this.#aliases.groups(namesMax);
  }

  /** For another thread or a file; it stays as it is while this table moves on. */
  share(): SharedTable {
    return {
      head: { ...this.#lists, fleet: this.fleet, revision: this.#revision },
      hashKey: this.#hashKey,
      listsSum: this.#listsSum,
      placements: this.#placements.share(),
      aliases: this.#aliases.share(),
      changedOwner: [...this.#changedOwner],
    };
  }

  /**
   * The table that was shared, at its revision; from there it moves on by itself. Of tables with the
   * same images one `owns` them and makes new ones; the others wait to be given those.
   */
  static fromShared(shared: SharedTable, owns = false): TableState {
    const { head, hashKey, placements, aliases, changedOwner } = shared;
    const table = new TableState(head, hashKey);
    table.#listsSum = shared.listsSum;
    table.#placements = Placements.fromShared(placements, hashKey, owns);
    table.#aliases = AliasIndex.fromShared(aliases);
    for (const [cell, at] of changedOwner) table.#changedOwner.set(cell, at);
    return table;
  }

  /** The checksum that the table would have after the change; for a publisher that writes the delta. */
  checksumAfter(change: TableChange): string | TableRefusal {
    const plan = this.#plan(change);
    return "kind" in plan ? plan : plan.checksum;
  }

  /** Applies all of a delta, or nothing and says why. */
  apply(delta: DeltaBody): TableRefusal | undefined {
    const plan = this.#plan(delta);
    if ("kind" in plan) return plan;
    if (plan.checksum !== delta.checksum) {
      return refused(
        "drift",
        `checksum after revision ${delta.to} would be ${plan.checksum}, the delta says ${delta.checksum}`,
      );
    }
    this.#commit(plan);
    return undefined;
  }

  /**
   * Adds placements or names while the table is being built. What is there already is refused, and the
   * table is of no use then.
   */
  load(group: PlacementGroup | AliasGroup): TableRefusal | undefined {
    if ("alias" in group) {
      const trouble = this.#aliases.load(group);
      return trouble === undefined ? undefined : refused("invalid", trouble);
    }
    const trouble = this.#placements.load(group);
    return trouble === undefined ? undefined : refused("invalid", trouble);
  }

  /**
   * All of it is loaded: from now on it is asked and moved on. A large table takes some time, so it
   * comes back after so many buckets of tenants; true when it is done.
   */
  settle(buckets: number = Number.POSITIVE_INFINITY): boolean {
    return this.#placements.settle(buckets);
  }

  #plan(change: TableChange): Plan | TableRefusal {
    if (change.fleet !== this.fleet) {
      return refused("other-fleet", `the delta is of fleet ${change.fleet}, not ${this.fleet}`);
    }
    if (change.from !== this.#revision || change.to <= change.from) {
      return refused(
        "gap",
        `the delta goes from ${change.from} to ${change.to}, the table is at ${this.#revision}`,
      );
    }
    const lists = listsAfter(this.#lists, change);
    const same = lists === this.#lists;
    const problem = same
      ? undefined
      : (listsProblem(lists) ?? this.#placements.keyspacesProblem(lists.keyspaces));
    if (problem !== undefined) return refused("invalid", problem);
    const wanted = wantedEdits(change, lists);
    if (typeof wanted === "string") return refused("invalid", wanted);
    const placements = this.#placements.plan(wanted);
    if (typeof placements === "string") return refused("invalid", placements);
    const { aliasDeletes: deletes = [], aliasUpserts: upserts = [] } = change;
    const aliases = this.#aliases.plan({ deletes, upserts });
    if (typeof aliases === "string") return refused("invalid", aliases);
    const listsSum = same ? this.#listsSum : mixLists(lists);
    const checksum = sumText(addSums(addSums(listsSum, placements.sum), aliases.sum));
    return { to: change.to, lists, listsSum, placements, aliases, checksum };
  }

  /** Nothing here can fail: everything was checked by `#plan`. */
  #commit(plan: Plan): void {
    if (plan.lists !== this.#lists) this.#setLists(plan.lists, plan.listsSum);
    this.#placements.commit(plan.placements);
    this.#aliases.commit(plan.aliases);
    for (const cell of plan.placements.changed) this.#changedOwner.set(cell, plan.to);
    this.#revision = plan.to;
  }

  #setLists(lists: TableLists, sum: Sum): void {
    this.#placements.setKeyspaces(lists.keyspaces);
    this.#lists = lists;
    this.#cells = cellMap(lists.cells);
    this.#listsSum = sum;
  }
}

type Plan = {
  readonly to: Revision;
  readonly lists: TableLists;
  readonly listsSum: Sum;
  readonly placements: PlacementPlan;
  readonly aliases: AliasPlan;
  readonly checksum: string;
};

/**
 * An empty table with the head's lists, or why the lists contradict themselves. `hashKey`: two random
 * words, where ids may come from somebody who wishes the table to be slow.
 */
export function startTable(head: TableHead, hashKey: HashKey = [0, 0]): TableState | TableRefusal {
  const problem = listsProblem(head);
  return problem === undefined ? new TableState(head, hashKey) : refused("invalid", problem);
}

/** A whole table at once. */
export function buildTable(
  head: TableHead,
  groups: Iterable<PlacementGroup | AliasGroup>,
): TableState | TableRefusal {
  const table = startTable(head);
  if ("kind" in table) return table;
  for (const group of groups) {
    const problem = table.load(group);
    if (problem !== undefined) return problem;
  }
  while (!table.settle());
  return table;
}

const cellMap = (cells: readonly RoutedCell[]): ReadonlyMap<CellId, RoutedCell> =>
  new Map(cells.map((cell) => [cell.id, cell]));
