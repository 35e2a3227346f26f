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
import type { CellId, KeyspaceName, Revision, TenantId } from "./ids.ts";
import {
  emptyRoutes,
  type FoundRoute,
  groupsOf,
  type KeyAt,
  type KeyspaceRoutes,
  keyText,
  lookupIn,
  mixerOf,
  mixRoute,
  type Owners,
  ownersOf,
  type Route,
  splitKey,
} from "./keyspace-routes.ts";
import type { PlacementKey } from "./placement-key.ts";
import type {
  AliasGroup,
  DeltaBody,
  PlacementGroup,
  RoutedCell,
  RoutedKeyspace,
  SnapshotHead,
} from "./routing-table.ts";
import type { SharedTable } from "./shared-table.ts";
import {
  addSums,
  emptySum,
  mixLists,
  type Sum,
  subtractSums,
  sumText,
  type TableLists,
} from "./table-checksum.ts";
import { listsAfter, optionalLists } from "./table-lists.ts";
import { type Edit, groupProblem, listsProblem, wantedEdits } from "./table-problems.ts";
import type { HashKey } from "./tenant-index.ts";

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
  #sum: Sum = emptySum;
  #epochMax = 0;
  #size = 0;
  readonly #keyspaces = new Map<KeyspaceName, KeyspaceRoutes>();
  #cells: ReadonlyMap<CellId, RoutedCell>;
  readonly #hashKey: HashKey;
  readonly #aliases = new AliasIndex();
  #hasher: { readonly salt: string; readonly hash: AliasHasher } | undefined;
  #owners: Owners | undefined;
  readonly #changedOwner = new Map<CellId, Revision>();

  /** Made by `startTable`, which has checked the lists. */
  constructor(head: TableHead, hashKey: HashKey) {
    const { fleet, revision, tenantSources, serviceRoutes, keyspaces, cells } = head;
    this.fleet = fleet;
    this.#revision = revision;
    this.#lists = { tenantSources, serviceRoutes, keyspaces, cells, ...optionalLists(head) };
    this.#listsSum = mixLists(this.#lists);
    this.#cells = cellMap(cells);
    for (const keyspace of keyspaces)
      this.#keyspaces.set(keyspace.name, emptyRoutes(keyspace, hashKey));
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
    return this.#size;
  }
  /** Names of tenants: pairs of name and tenant. */
  get aliasCount(): number {
    return this.#aliases.size;
  }
  /** The highest epoch this table has ever held; 0 while it is empty. */
  get epochMax(): number {
    return this.#epochMax;
  }
  /** 16 hex digits. */
  get checksum(): string {
    return sumText(addSums(addSums(this.#listsSum, this.#sum), this.#aliases.sum));
  }

  cell(id: CellId): RoutedCell | undefined {
    return this.#cells.get(id);
  }

  keyspace(name: KeyspaceName): RoutedKeyspace | undefined {
    return this.#keyspaces.get(name)?.keyspace;
  }

  /** The placement that decides for a tenant. Undefined: no such keyspace, or nobody owns the tenant. */
  lookup(keyspace: KeyspaceName, tenant: TenantId): FoundRoute | undefined {
    const routes = this.#keyspaces.get(keyspace);
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
    return at === undefined
      ? undefined
      : this.#keyspaces.get(at.keyspace)?.byKind[at.kind].get(at.value);
  }

  /** Who owns anything; the same object until a placement changes. */
  owners(): Owners {
    this.#owners ??= ownersOf([...this.#keyspaces.values()]);
    return this.#owners;
  }

  /** Cells that lost or gained a placement in a change after `revision`. */
  changedOwner(revision: Revision): CellId[] {
    return [...this.#changedOwner].flatMap(([cell, at]) => (at > revision ? [cell] : []));
  }

  /** All placements in bulk, as a snapshot carries them: the same table gives the same groups, in any order. */
  *groups(valuesMax = 10_000): Generator<PlacementGroup> {
    for (const [keyspace, routes] of this.#keyspaces) {
      for (const kind of ["tenant", "slot", "range"] as const) {
        yield* groupsOf(keyspace, kind, routes.byKind[kind], valuesMax);
      }
    }
  }

  /** All names in bulk, as a snapshot carries them, in any order. */
  aliasGroups(namesMax = 10_000): Generator<AliasGroup> {
    return this.#aliases.groups(namesMax);
  }

  /** For another thread; it stays as it is while this table moves on. */
  share(): SharedTable {
    const head = { ...this.#lists, fleet: this.fleet, revision: this.#revision };
    const groups = [...this.groups(), ...this.aliasGroups()];
    return { head, hashKey: this.#hashKey, epochMax: this.#epochMax, groups };
  }

  /** The table that was shared, at its revision; from there it moves on by itself. */
  static fromShared({ head, hashKey, epochMax, groups }: SharedTable): TableState {
    const table = new TableState(head, hashKey);
    for (const group of groups) table.load(group);
    table.#epochMax = epochMax;
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
    const problem = groupProblem(group, this.#keyspaces.get(group.keyspace)?.keyspace);
    if (problem !== undefined) return refused("invalid", problem);
    const { keyspace, kind, cell, epoch, state } = group;
    const route: Route = { cell, epoch, state };
    const mix = mixerOf(keyspace, kind, route);
    for (const value of group.values) {
      const at = { keyspace, kind, value };
      if (!this.#put(at, route)) return refused("invalid", `${keyText(at)} is placed twice`);
      this.#sum = addSums(this.#sum, mix(value));
    }
    return undefined;
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
    const problem = same ? undefined : (listsProblem(lists) ?? this.#keyspacesProblem(lists));
    if (problem !== undefined) return refused("invalid", problem);
    const edits = this.#edits(change, lists);
    if ("kind" in edits) return edits;
    const { aliasDeletes: deletes = [], aliasUpserts: upserts = [] } = change;
    const aliases = this.#aliases.plan({ deletes, upserts });
    if (typeof aliases === "string") return refused("invalid", aliases);
    const listsSum = same ? this.#listsSum : mixLists(lists);
    return {
      to: change.to,
      lists,
      listsSum,
      ...edits,
      aliases,
      checksum: sumText(addSums(addSums(listsSum, edits.sum), aliases.sum)),
    };
  }

  /** What each key becomes, and the sum of the placements afterwards. */
  #edits(
    change: TableChange,
    lists: TableLists,
  ): Pick<Plan, "edits" | "sum" | "changed"> | TableRefusal {
    const wanted = wantedEdits(change, lists);
    if (typeof wanted === "string") return refused("invalid", wanted);
    const seen = new Set<string>();
    const changed: CellId[] = [];
    let sum = this.#sum;
    for (const edit of wanted) {
      const key = keyText(edit);
      // Folded by the publisher: with two lines for one key the order would decide.
      if (seen.has(key)) return refused("invalid", `the delta names ${key} twice`);
      seen.add(key);
      const before = this.#routeAt(edit);
      if (before !== undefined && before.cell !== edit.route?.cell) {
        changed.push(before.cell, ...(edit.route === undefined ? [] : [edit.route.cell]));
      }
      if (before !== undefined) sum = subtractSums(sum, mixRoute(edit, before));
      if (edit.route !== undefined) sum = addSums(sum, mixRoute(edit, edit.route));
    }
    return { edits: wanted, sum, changed };
  }

  /** A mapping is not changed under live tenants: that takes a snapshot. */
  #keyspacesProblem(lists: TableLists): string | undefined {
    for (const { keyspace } of this.#keyspaces.values()) {
      const next = lists.keyspaces.find((one) => one.name === keyspace.name);
      if (next?.strategy !== keyspace.strategy || next.slotCount !== keyspace.slotCount) {
        return `a delta cannot remove keyspace ${keyspace.name} or change its mapping`;
      }
    }
    return undefined;
  }

  /** Nothing here can fail: everything was checked by `#plan`. */
  #commit(plan: Plan): void {
    if (plan.lists !== this.#lists) this.#setLists(plan.lists, plan.listsSum);
    for (const edit of plan.edits) {
      if (edit.route === undefined) this.#remove(edit);
      else this.#put(edit, edit.route);
    }
    this.#sum = plan.sum;
    this.#aliases.commit(plan.aliases);
    for (const cell of plan.changed) this.#changedOwner.set(cell, plan.to);
    this.#revision = plan.to;
  }

  #setLists(lists: TableLists, sum: Sum): void {
    for (const keyspace of lists.keyspaces) {
      const routes = this.#keyspaces.get(keyspace.name);
      if (routes === undefined)
        this.#keyspaces.set(keyspace.name, emptyRoutes(keyspace, this.#hashKey));
      else routes.keyspace = keyspace;
    }
    this.#lists = lists;
    this.#cells = cellMap(lists.cells);
    this.#listsSum = sum;
  }

  #routeAt(at: KeyAt): Route | undefined {
    return this.#keyspaces.get(at.keyspace)?.byKind[at.kind].get(at.value);
  }

  /** False if the key was there before. */
  #put(at: KeyAt, route: Route): boolean {
    const routes = this.#keyspaces.get(at.keyspace);
    if (routes === undefined) return false;
    const index = routes.byKind[at.kind];
    const before = index.size;
    index.set(at.value, route);
    const isNew = index.size !== before;
    this.#size += index.size - before;
    this.#owners = undefined;
    if (at.kind === "range" && isNew) routes.starts = undefined;
    if (route.epoch > this.#epochMax) this.#epochMax = route.epoch;
    return isNew;
  }

  #remove(at: KeyAt): void {
    const routes = this.#keyspaces.get(at.keyspace);
    if (routes === undefined || !routes.byKind[at.kind].delete(at.value)) return;
    this.#size -= 1;
    this.#owners = undefined;
    if (at.kind === "range") routes.starts = undefined;
  }
}

type Plan = {
  readonly to: Revision;
  readonly lists: TableLists;
  readonly listsSum: Sum;
  readonly edits: readonly Edit[];
  readonly sum: Sum;
  /** Cells that lose or gain a placement. */
  readonly changed: readonly CellId[];
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
  return table;
}

const cellMap = (cells: readonly RoutedCell[]): ReadonlyMap<CellId, RoutedCell> =>
  new Map(cells.map((cell) => [cell.id, cell]));
