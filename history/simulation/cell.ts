/**
 * A cell's database in memory: rows, who owns what, the lease, the write-ahead log, and the guard with the
 * locks and snapshots that its rules are about. A stream carries one tenant's changes from log to log.
 */
import { type Actor, pause, type World } from "./world.ts";

export type Table = "orders" | "registers" | "idempotency" | "outbox";
export type Change =
  | {
      readonly kind: "put";
      readonly table: Table;
      readonly tenant: string;
      readonly key: string;
      readonly data: string;
      readonly origin: boolean;
    }
  | {
      readonly kind: "marker";
      readonly nonce: string;
      readonly tenant: string;
      readonly origin: false;
    }
  | { readonly kind: "truncate"; readonly tenant: ""; readonly origin: false };

export type Owned = {
  readonly state: "importing" | "active" | "fenced" | "moved";
  readonly epoch: number;
  readonly attempt: number;
};
const rank = { importing: 0, active: 1, fenced: 2, moved: 3 } as const;

export type Committed = {
  readonly tenant: string;
  readonly value: string;
  readonly epoch: number;
  readonly at: number;
  /** Its end in the log: a stream that got so far has it. */
  readonly position: number;
};

export type Cell = {
  readonly name: string;
  readonly rows: Map<string, Extract<Change, { kind: "put" }>>;
  readonly owned: Map<string, Owned>;
  /** One entry per transaction: a stream carries all of it or nothing. */
  readonly log: (readonly Change[])[];
  readonly markers: Set<string>;
  readonly commits: Committed[];
  /** Keys whose gate lets nobody in, and requests that are inside. */
  readonly closed: Set<string>;
  readonly inside: Map<string, number>;
  readonly sharing: Map<string, number>;
  readonly excluding: Set<string>;
  lease: { until: number; boot: number };
  boot: number;
  sequence: number;
};

export const createCell = (name: string, firstId: number): Cell => ({
  name,
  rows: new Map(),
  owned: new Map(),
  log: [],
  markers: new Set(),
  commits: [],
  closed: new Set(),
  inside: new Map(),
  sharing: new Map(),
  excluding: new Set(),
  lease: { until: 0, boot: 1 },
  boot: 1,
  sequence: firstId,
});

export const rowKey = (table: Table, tenant: string, key: string) => `${table}|${tenant}|${key}`;
export const read = (cell: Cell, table: Table, tenant: string, key: string): string | undefined =>
  cell.rows.get(rowKey(table, tenant, key))?.data;
export const rowsOf = (cell: Cell, table: Table, tenant: string) =>
  [...cell.rows.values()].filter((row) => row.table === table && row.tenant === tenant);

export const count = (map: Map<string, number>, key: string, by: number): void => {
  map.set(key, (map.get(key) ?? 0) + by);
};

export const leaseLeft = (world: World, cell: Cell): number =>
  cell.lease.boot === cell.boot || world.has("no-boot-check") ? cell.lease.until - world.now() : 0;

/** The order of cell/sql/060-ownership.sql. */
export function applyOwnership(world: World, cell: Cell, tenant: string, wanted: Owned): void {
  const now = cell.owned.get(tenant);
  const order = ({ epoch, attempt, state }: Owned) => [epoch, attempt, rank[state]] as const;
  const newer = now === undefined || compare(order(wanted), order(now)) > 0;
  if (newer || world.has("any-attempt")) cell.owned.set(tenant, wanted);
}

const compare = (a: readonly number[], b: readonly number[]): number => {
  const first = a.findIndex((value, index) => value !== b[index]);
  return first < 0 ? 0 : (a[first] ?? 0) - (b[first] ?? 0);
};

export type Written = { readonly epoch: number; readonly position: number };

/**
 * One transaction past the guard; undefined: refused, nothing was written. `make` runs when all locks are
 * held, so what it reads is what it writes over. A restart of the database meanwhile undoes it.
 */
export function* transact(
  world: World,
  cell: Cell,
  tenant: string,
  make: () => { readonly changes: readonly Change[]; readonly value: string } | undefined,
): Actor<Written | undefined> {
  const { boot } = cell;
  const begun = cell.owned.get(tenant);
  const repeatable = world.chance() < 0.5;
  const trusted = world.has("trusting-guard") && world.chance() < 0.5;
  yield;
  const early = cell.owned.get(tenant);
  if (!world.has("two-locks")) yield () => !cell.excluding.has(tenant);
  count(cell.sharing, tenant, 1);
  const now = cell.owned.get(tenant);
  const seen = seenByGuard(world, repeatable, { begun, early, now });
  const mayWrite = () => trusted || (seen?.state === "active" && leaseLeft(world, cell) > 0);
  const passed = mayWrite();
  // Most are quick, some stall.
  yield* pause(world, world.chance() < 0.1 ? 150 : 6);
  // The deferred look of the guard; a stall after it is what rule R2 is for.
  const live = passed && mayWrite();
  if (live && world.chance() < 0.3) yield* pause(world, 12);
  const made = live && cell.boot === boot ? make() : undefined;
  count(cell.sharing, tenant, -1);
  if (made === undefined) return undefined;
  if (made.changes.length > 0) write(cell, made.changes);
  const written = { epoch: now?.epoch ?? 0, position: cell.log.length };
  if (made.value !== "") {
    cell.commits.push({ tenant, value: made.value, at: world.now(), ...written });
  }
  return written;
}

/** The row of ownership as the guard reads it: before the lock was there, or after. */
function seenByGuard(
  world: World,
  repeatable: boolean,
  row: Readonly<Record<"begun" | "early" | "now", Owned | undefined>>,
): Owned | undefined {
  if (world.has("one-statement")) return row.early;
  if (!repeatable) return row.now;
  // FOR SHARE of a row that has changed since the snapshot: 40001.
  if (!world.has("plain-select") && row.begun !== row.now) return undefined;
  return row.begun;
}

export function write(cell: Cell, changes: readonly Change[]): void {
  cell.log.push(changes);
  for (const change of changes) {
    if (change.kind === "put")
      cell.rows.set(rowKey(change.table, change.tenant, change.key), change);
    if (change.kind === "marker") cell.markers.add(change.nonce);
    if (change.kind === "truncate") cell.rows.clear();
  }
}

export type Stream = {
  readonly from: Cell;
  readonly to: Cell;
  readonly tenants: Set<string>;
  readonly anyOrigin: boolean;
  readonly truncates: boolean;
  readonly skips: ReadonlySet<Table>;
  position: number;
  on: boolean;
};

/** Applies while it is on, for ever. */
export function* follow(world: World, stream: Stream): Actor {
  for (;;) {
    yield () => stream.on && stream.position < stream.from.log.length;
    const transaction = stream.from.log[stream.position] ?? [];
    stream.position += 1;
    apply(stream, transaction);
    if (world.chance() < 0.3) yield* pause(world, 4);
  }
}

/** Asked for the origin, the source sends only what it was not sent itself. */
function apply(stream: Stream, transaction: readonly Change[]): void {
  const { to, truncates, tenants, skips, anyOrigin } = stream;
  const rows: Change[] = [];
  for (const change of transaction) {
    if (change.origin && !anyOrigin) continue;
    if (change.kind === "truncate") {
      if (truncates) to.rows.clear();
    } else if (change.kind === "marker") {
      to.markers.add(change.nonce);
    } else if (tenants.has(change.tenant) && !skips.has(change.table)) {
      rows.push({ ...change, origin: true });
    }
  }
  if (rows.length > 0) write(to, rows);
}
