/**
 * The names of tenants in a routing table: from the hash of a name to the tenants it stands for.
 *
 * What must always be true: a name and a tenant are together once or not at all, so the checksum of
 * all names is the sum of their mixes; a change is planned whole before anything is touched, and its
 * commit cannot fail.
 */
import { AliasSlots } from "./alias-slots.ts";
import { type KeyspaceName, parseTenantId, type TenantId } from "./ids.ts";
import type { AliasGroup } from "./routing-table.ts";
import type { SharedSlots } from "./slot-table.ts";
import { addSums, createMixer, emptySum, type Sum, subtractSums } from "./table-checksum.ts";

/** A tenant that a name stands for. */
export type AliasTarget = { readonly keyspace: KeyspaceName; readonly tenant: TenantId };

type Scope = {
  readonly alias: string;
  readonly keyspace: KeyspaceName;
  readonly number: number;
  readonly mix: (rest: string) => Sum;
};
type Name = { readonly scope: Scope; readonly hash: string; readonly tenant: string };

export type AliasChange = {
  readonly deletes: readonly AliasGroup[];
  readonly upserts: readonly AliasGroup[];
};
export type AliasPlan = {
  readonly removals: readonly Name[];
  readonly additions: readonly Name[];
  /** Of all names afterwards. */
  readonly sum: Sum;
};

/** Pairs of namespace and keyspace; the number of one has two bytes. */
const scopesMax = 65_536;
/** A name of more tenants is kept in a map: entries of one hash stand in one long row. */
const crowdMin = 8;

/** Of one name, by scope number and tenant. */
type Crowd = {
  readonly names: Map<string, Name>;
  /** Undefined after a change, until somebody asks. */
  asked: { readonly alias: string; readonly targets: readonly AliasTarget[] } | undefined;
};

/** What `postMessage` can carry, and what a file holds. */
export type SharedAliases = {
  readonly sum: Sum;
  readonly scopes: ReadonlyArray<Pick<AliasGroup, "alias" | "keyspace">>;
  readonly slots: SharedSlots;
  /** Hash, scope number and tenant of the names that stand for many. */
  readonly crowded: ReadonlyArray<readonly [string, number, string]>;
};

export class AliasIndex {
  #slots = new AliasSlots();
  readonly #crowds = new Map<string, Crowd>();
  #crowded = 0;
  #sum: Sum = emptySum;
  readonly #scopes: Scope[] = [];
  readonly #scopeOf = new Map<string, Scope>();

  static fromShared({ sum, scopes, slots, crowded }: SharedAliases): AliasIndex {
    const index = new AliasIndex();
    for (const scope of scopes) index.#scopeFor({ ...scope, names: [] });
    index.#slots = AliasSlots.fromShared(slots);
    for (const [hash, number, tenant] of crowded) {
      const scope = index.#scopes[number];
      const crowd = index.#crowds.get(hash) ?? { names: new Map(), asked: undefined };
      index.#crowds.set(hash, crowd);
      if (scope !== undefined) index.#join(crowd, { scope, hash, tenant });
    }
    index.#sum = sum;
    return index;
  }

  share(): SharedAliases {
    const crowds = [...this.#crowds.values()].flatMap(({ names }) => [...names.values()]);
    return {
      sum: this.#sum,
      scopes: this.#scopes.map(({ alias, keyspace }) => ({ alias, keyspace })),
      slots: this.#slots.share(),
      crowded: crowds.map(({ hash, scope, tenant }) => [hash, scope.number, tenant] as const),
    };
  }

  get size(): number {
    return this.#slots.size + this.#crowded;
  }
  /** Of the arrays. */
  get bytes(): number {
    return this.#slots.bytes;
  }
  get sum(): Sum {
    return this.#sum;
  }

  /** Tenants of a name, in no order. */
  lookup(alias: string, hash: string): readonly AliasTarget[] {
    const crowd = this.#crowds.size === 0 ? undefined : this.#crowds.get(hash);
    if (crowd !== undefined) {
      if (crowd.asked?.alias !== alias) {
        const targets = [...crowd.names.values()].flatMap((name) => targetOf(alias, name));
        crowd.asked = { alias, targets };
      }
      return crowd.asked.targets;
    }
    return this.#slots
      .find(hash)
      .flatMap(({ scope, tenant }) => targetOf(alias, { scope: this.#scopes[scope], tenant }));
  }

  /** Adds names while a table is being built; what is wrong with them, if something is. */
  load(group: AliasGroup): string | undefined {
    const scope = this.#scopeFor(group);
    if (scope === undefined) return tooManyScopes;
    for (const [hash, tenant] of group.names) {
      if (!isHash(hash)) return `${hash} is no hash of a name`;
      const name = { scope, hash, tenant };
      if (!this.#add(name)) return `${describe(name)} is listed twice`;
      this.#sum = addSums(this.#sum, mixName(name));
    }
    return undefined;
  }

  /** Deletes come before upserts; what is gone already, or there already, changes nothing. */
  plan(change: AliasChange): AliasPlan | string {
    const removals = this.#namesOf(change.deletes);
    const upserts = this.#namesOf(change.upserts);
    if (typeof removals === "string") return removals;
    if (typeof upserts === "string") return upserts;
    let sum = this.#sum;
    const present = [...removals.values()].filter((name) => this.#has(name));
    for (const name of present) sum = subtractSums(sum, mixName(name));
    const additions = [...upserts]
      .filter(([text, name]) => removals.has(text) || !this.#has(name))
      .map(([, name]) => name);
    for (const name of additions) sum = addSums(sum, mixName(name));
    return { removals: present, additions, sum };
  }

  /** Cannot fail; the plan was made from the names as they are. */
  commit({ removals, additions, sum }: AliasPlan): void {
    for (const name of removals) this.#remove(name);
    for (const name of additions) this.#add(name);
    this.#sum = sum;
  }

  /** All names in bulk, as a snapshot carries them. */
  *groups(namesMax: number): Generator<AliasGroup> {
    const open = new Map<Scope, AliasGroup["names"]>();
    for (const { scope, hash, tenant } of this.#all()) {
      const names = open.get(scope) ?? [];
      const id = parseTenantId(tenant);
      if (id !== undefined) names.push([hash, id]);
      open.set(scope, names);
      if (names.length < namesMax) continue;
      open.delete(scope);
      yield { alias: scope.alias, keyspace: scope.keyspace, names };
    }
    for (const [{ alias, keyspace }, names] of open) yield { alias, keyspace, names };
  }

  *#all(): Generator<Name> {
    for (const { scope: number, hash, tenant } of this.#slots.entries()) {
      const scope = this.#scopes[number];
      if (scope !== undefined) yield { scope, hash, tenant };
    }
    for (const { names } of this.#crowds.values()) yield* names.values();
  }

  /** By their texts; two lines for one name make the sum uncertain and are refused. */
  #namesOf(groups: readonly AliasGroup[]): Map<string, Name> | string {
    const names = new Map<string, Name>();
    for (const group of groups) {
      const scope = this.#scopeFor(group);
      if (scope === undefined) return tooManyScopes;
      for (const [hash, tenant] of group.names) {
        const name = { scope, hash, tenant };
        const text = describe(name);
        if (!isHash(hash)) return `${hash} is no hash of a name`;
        if (names.has(text)) return `the delta names ${text} twice`;
        names.set(text, name);
      }
    }
    return names;
  }

  #has(name: Name): boolean {
    const crowd = this.#crowds.get(name.hash);
    return crowd === undefined ? this.#slots.has(entryOf(name)) : crowd.names.has(memberOf(name));
  }

  /** False if it was there before. */
  #add(name: Name): boolean {
    const crowd = this.#crowds.get(name.hash);
    if (crowd !== undefined) return this.#join(crowd, name);
    const alike = this.#slots.add(entryOf(name));
    if (alike > crowdMin) this.#gather(name.hash);
    return alike > 0;
  }

  #join(crowd: Crowd, name: Name): boolean {
    const member = memberOf(name);
    if (crowd.names.has(member)) return false;
    crowd.names.set(member, name);
    crowd.asked = undefined;
    this.#crowded += 1;
    return true;
  }

  /** Moves all entries of a name into a crowd. */
  #gather(hash: string): void {
    const crowd: Crowd = { names: new Map(), asked: undefined };
    for (const { scope: number, tenant } of this.#slots.find(hash)) {
      const scope = this.#scopes[number];
      if (scope === undefined) continue;
      this.#slots.remove({ scope: number, hash, tenant });
      this.#join(crowd, { scope, hash, tenant });
    }
    this.#crowds.set(hash, crowd);
  }

  #remove(name: Name): void {
    const crowd = this.#crowds.get(name.hash);
    if (crowd === undefined) {
      this.#slots.remove(entryOf(name));
      return;
    }
    if (!crowd.names.delete(memberOf(name))) return;
    crowd.asked = undefined;
    this.#crowded -= 1;
    if (crowd.names.size === 0) this.#crowds.delete(name.hash);
  }

  /** Undefined: there is no number left. */
  #scopeFor({ alias, keyspace }: AliasGroup): Scope | undefined {
    const text = `${alias} ${keyspace}/`;
    const known = this.#scopeOf.get(text);
    if (known !== undefined) return known;
    const number = this.#scopes.length;
    if (number >= scopesMax) return undefined;
    const scope = { alias, keyspace, number, mix: createMixer(`alias ${text}`) };
    this.#scopes.push(scope);
    this.#scopeOf.set(text, scope);
    return scope;
  }
}

const tooManyScopes = `there are more than ${scopesMax} pairs of namespace and keyspace`;

/** 128 bits are 21 letters and two bits; with other bits the same hash would have two spellings. */
const isHash = (hash: string): boolean => /^[A-Za-z0-9_-]{21}[AQgw]$/.test(hash);

const describe = ({ scope, hash, tenant }: Name): string =>
  `${scope.alias} ${hash} of ${scope.keyspace}/${tenant}`;
const memberOf = ({ scope, tenant }: Name): string => `${scope.number} ${tenant}`;
const entryOf = ({ scope, hash, tenant }: Name) => ({ scope: scope.number, hash, tenant });
const mixName = ({ scope, hash, tenant }: Name): Sum => scope.mix(`${hash} ${tenant}`);

/** None if the entry is of another namespace; ids were checked when they came. */
function targetOf(
  alias: string,
  { scope, tenant }: { readonly scope: Scope | undefined; readonly tenant: string },
): AliasTarget[] {
  if (scope?.alias !== alias) return [];
  const id = parseTenantId(tenant);
  return id === undefined ? [] : [{ keyspace: scope.keyspace, tenant: id }];
}
