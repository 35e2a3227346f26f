/**
 * Every placement of a routing table, keyspace by keyspace, with what is known about all of them: how
 * many, whose, the highest epoch, their part of the checksum.
 *
 * What must always be true: a change is planned whole before anything is touched, and its commit
 * cannot fail.
 */
import type { HashKey } from "./half-sip-hash.ts";
import type { CellId, KeyspaceName } from "./ids.ts";
import {
  emptyRoutes,
  groupsOf,
  type KeyAt,
  type KeyspaceRoutes,
  keyText,
  mixerOf,
  mixRoute,
  type Owners,
  ownersOf,
  type Route,
  routesFromShared,
  type SharedKeyspace,
  shareRoutes,
} from "./keyspace-routes.ts";
import type { PlacementGroup, RoutedKeyspace } from "./routing-table.ts";
import { addSums, emptySum, type Sum, subtractSums } from "./table-checksum.ts";
import { type Edit, groupProblem } from "./table-problems.ts";

export type PlacementPlan = {
  readonly edits: readonly Edit[];
  /** Of all placements afterwards. */
  readonly sum: Sum;
  /** Cells that lose or gain a placement. */
  readonly changed: readonly CellId[];
};

export type SharedPlacements = {
  readonly sum: Sum;
  readonly epochMax: number;
  readonly keyspaces: readonly SharedKeyspace[];
};

export class Placements {
  readonly #keyspaces = new Map<KeyspaceName, KeyspaceRoutes>();
  readonly #hashKey: HashKey;
  #sum: Sum = emptySum;
  #epochMax = 0;
  #size = 0;
  #owners: Owners | undefined;

  constructor(hashKey: HashKey) {
    this.#hashKey = hashKey;
  }

  /** `owns`: the images are this table's alone, so that it may put new ones in their place. */
  static fromShared(
    { sum, epochMax, keyspaces }: SharedPlacements,
    hashKey: HashKey,
    owns: boolean,
  ): Placements {
    const placements = new Placements(hashKey);
    for (const shared of keyspaces) {
      const routes = routesFromShared(shared, hashKey, owns);
      placements.#keyspaces.set(shared.keyspace.name, routes);
      for (const { size } of Object.values(routes.byKind)) placements.#size += size;
    }
    placements.#sum = sum;
    placements.#epochMax = epochMax;
    return placements;
  }

  share(): SharedPlacements {
    const keyspaces = [...this.#keyspaces.values()].map(shareRoutes);
    return { sum: this.#sum, epochMax: this.#epochMax, keyspaces };
  }

  get size(): number {
    return this.#size;
  }
  get epochMax(): number {
    return this.#epochMax;
  }
  get sum(): Sum {
    return this.#sum;
  }
  /** Of the arrays. */
  get bytes(): number {
    return this.#add(({ byKind }) => byKind.tenant.bytes);
  }
  /** Grows with each new image of a keyspace's tenants. */
  get generation(): number {
    return this.#add(({ byKind }) => byKind.tenant.generation);
  }

  routes(name: KeyspaceName): KeyspaceRoutes | undefined {
    return this.#keyspaces.get(name);
  }

  routeAt(at: KeyAt): Route | undefined {
    return this.#keyspaces.get(at.keyspace)?.byKind[at.kind].get(at.value);
  }

  /** Who owns anything; the same object until a placement changes. */
  owners(): Owners {
    this.#owners ??= ownersOf([...this.#keyspaces.values()]);
    return this.#owners;
  }

  *groups(valuesMax: number): Generator<PlacementGroup> {
    for (const [keyspace, routes] of this.#keyspaces) {
      for (const kind of ["tenant", "slot", "range"] as const) {
        yield* groupsOf(keyspace, kind, routes.byKind[kind], valuesMax);
      }
    }
  }

  /** Keyspaces come and change; none goes without a new table. */
  setKeyspaces(keyspaces: readonly RoutedKeyspace[]): void {
    for (const keyspace of keyspaces) {
      const routes = this.#keyspaces.get(keyspace.name);
      if (routes !== undefined) routes.keyspace = keyspace;
      else this.#keyspaces.set(keyspace.name, emptyRoutes(keyspace, this.#hashKey));
    }
  }

  /** A mapping is not changed under live tenants: that takes a snapshot. */
  keyspacesProblem(keyspaces: readonly RoutedKeyspace[]): string | undefined {
    for (const { keyspace } of this.#keyspaces.values()) {
      const next = keyspaces.find((one) => one.name === keyspace.name);
      if (next?.strategy !== keyspace.strategy || next.slotCount !== keyspace.slotCount) {
        return `a delta cannot remove keyspace ${keyspace.name} or change its mapping`;
      }
    }
    return undefined;
  }

  /** While a table is being filled; what is wrong, if something is. */
  load(group: PlacementGroup): string | undefined {
    const problem = groupProblem(group, this.#keyspaces.get(group.keyspace)?.keyspace);
    if (problem !== undefined) return problem;
    const { keyspace, kind, cell, epoch, state } = group;
    const route: Route = { cell, epoch, state };
    const mix = mixerOf(keyspace, kind, route);
    for (const value of group.values) {
      const at = { keyspace, kind, value };
      if (!this.#put(at, route)) return `${keyText(at)} is placed twice`;
      this.#sum = addSums(this.#sum, mix(value));
    }
    return undefined;
  }

  /** The table is filled; true when all is in its place, else it wants to be called again. */
  settle(buckets: number): boolean {
    return [...this.#keyspaces.values()].every(({ byKind }) => byKind.tenant.settle(buckets));
  }

  /** What each key becomes, and the sum of the placements afterwards. */
  plan(edits: readonly Edit[]): PlacementPlan | string {
    const seen = new Set<string>();
    const changed: CellId[] = [];
    let sum = this.#sum;
    for (const edit of edits) {
      const key = keyText(edit);
      // Folded by the publisher: with two lines for one key the order would decide.
      if (seen.has(key)) return `the delta names ${key} twice`;
      seen.add(key);
      const before = this.routeAt(edit);
      if (before !== undefined && before.cell !== edit.route?.cell) {
        changed.push(before.cell, ...(edit.route === undefined ? [] : [edit.route.cell]));
      }
      if (before !== undefined) sum = subtractSums(sum, mixRoute(edit, before));
      if (edit.route !== undefined) sum = addSums(sum, mixRoute(edit, edit.route));
    }
    return { edits, sum, changed };
  }

  /** Nothing here can fail: everything was checked by `plan`. */
  commit({ edits, sum }: PlacementPlan): void {
    for (const edit of edits) {
      if (edit.route === undefined) this.#remove(edit);
      else this.#put(edit, edit.route);
    }
    this.#sum = sum;
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

  #add(figure: (routes: KeyspaceRoutes) => number): number {
    return [...this.#keyspaces.values()].reduce((sum, routes) => sum + figure(routes), 0);
  }
}
