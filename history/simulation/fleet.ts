/**
 * What stands around the cells: the control plane's word on who owns the tenant, routers that hear of it
 * late, customers, and in each cell the application's workers, which no router knows of.
 */
import type { Entry } from "../model.ts";
import { createRecorder, type Recorder } from "../recorder.ts";
import type { BugName } from "./bugs.ts";
import {
  applyOwnership,
  type Cell,
  type Change,
  count,
  createCell,
  leaseLeft,
  type Owned,
  read,
  rowsOf,
  type Table,
  transact,
} from "./cell.ts";
import { type Actor, createWorld, pause, type World } from "./world.ts";

export type Route = {
  readonly revision: number;
  readonly cell: Cell;
  readonly epoch: number;
  /** `hold`: answers that come meanwhile are delivered; `revoked`: none is (rules R2 and R3). */
  readonly state: "active" | "hold" | "revoked";
};
export type Router = { route: Route; readonly reachable: boolean };

export type Fleet = {
  readonly world: World;
  readonly tenant: string;
  readonly cells: readonly [Cell, Cell, Cell];
  readonly routers: readonly Router[];
  readonly recorder: Recorder;
  readonly entries: Entry[];
  /** Messages that the receiver has seen: it tells repeats by their id. */
  readonly received: Set<string>;
  /** By value: the cell that it was acknowledged in, and where it stands in that cell's log. */
  readonly acknowledged: Map<string, { readonly cell: Cell; readonly position: number }>;
  route: Route;
  requests: number;
  /** A planned move promises that a message is sent once; a takeover that its effect happens once. */
  dedupes: boolean;
};

export const tenant = "acme";
/** Lives in the second cell and moves nowhere. */
export const neighbour = "globex";
const leaseSteps = 150;

export function createFleet(seed: number, bug: BugName | undefined): Fleet {
  const world = createWorld(seed, bug);
  const first = (n: number) => (world.has("same-sequences") ? 1 : n * 1000 + 1);
  const cells = [
    createCell("a", first(0)),
    createCell("b", first(1)),
    createCell("c", first(2)),
  ] as const;
  const entries: Entry[] = [];
  const route: Route = { revision: 1, cell: cells[0], epoch: 1, state: "active" };
  const recorder = createRecorder({
    clock: { monotonicMs: world.now },
    run: `seed-${seed}`,
    write: (entry) => entries.push(entry),
  });
  cells[0].owned.set(tenant, { state: "active", epoch: 1, attempt: 0 });
  cells[1].owned.set(neighbour, { state: "active", epoch: 1, attempt: 0 });
  for (const cell of cells) cell.lease = { until: Infinity, boot: cell.boot };
  recorder.note({ kind: "owner", tenant, cell: "a", epoch: 1, revision: 1 });
  recorder.note({ kind: "owner", tenant: neighbour, cell: "b", epoch: 1, revision: 1 });
  return {
    world,
    tenant,
    cells,
    routers: [
      { route, reachable: true },
      { route, reachable: false },
    ],
    recorder,
    entries,
    received: new Set(),
    acknowledged: new Map(),
    route,
    requests: 0,
    dedupes: false,
  };
}

/** Routers hear of it in their own time; `unreachable` ones too, unless a takeover says otherwise. */
export function* publish(fleet: Fleet, route: Omit<Route, "revision">, all: boolean): Actor {
  const { world } = fleet;
  fleet.route = { ...route, revision: fleet.route.revision + 1 };
  const newest = fleet.route;
  const told = fleet.routers.filter(({ reachable }) => all || reachable);
  for (const router of told) world.start(hear(world, router, newest));
  yield () => told.every((router) => router.route.revision >= newest.revision);
}

function* hear(world: World, router: Router, route: Route): Actor {
  yield* pause(world, 15);
  if (route.revision > router.route.revision) router.route = route;
}

/** A command to a cell's database: it arrives late, and also when its sender is gone. */
export function* command(fleet: Fleet, cell: Cell, owned: Owned): Actor {
  const done = fleet.world.start(deliver(fleet.world, cell, owned));
  yield () => done.ended;
}

function* deliver(world: World, cell: Cell, owned: Owned): Actor {
  yield* pause(world, 20);
  if (owned.state !== "fenced") {
    applyOwnership(world, cell, tenant, owned);
    return;
  }
  cell.excluding.add(tenant);
  // With two locks the fence waits for nobody.
  yield () => world.has("two-locks") || (cell.sharing.get(tenant) ?? 0) === 0;
  applyOwnership(world, cell, tenant, owned);
  cell.excluding.delete(tenant);
}

type Told<Result> =
  | { readonly kind: "ok"; readonly cell: Cell; readonly epoch: number; readonly result: Result }
  | { readonly kind: "fail" | "unknown" };

/** One request through one router: hold, gate, application, rule R2. */
function* forward<Result>(
  fleet: Fleet,
  router: Router,
  serve: (cell: Cell, epoch: number) => Actor<Result | undefined>,
): Actor<Told<Result>> {
  const { world } = fleet;
  yield () => router.route.state === "active";
  const { cell, epoch } = router.route;
  const sentAt = world.now();
  yield* pause(world, 8);
  const isServed = () => {
    const owned = cell.owned.get(tenant);
    return owned?.state === "active" && owned.epoch === epoch && leaseLeft(world, cell) > 0;
  };
  if (!isServed() || cell.closed.has(tenant)) return { kind: "fail" };
  const { boot } = cell;
  count(cell.inside, tenant, 1);
  const result = yield* serve(cell, epoch);
  const left = leaseLeft(world, cell);
  const confirmed = isServed();
  count(cell.inside, tenant, -1);
  if (result === undefined || (cell.boot !== boot && !world.has("no-boot-check"))) {
    return { kind: "unknown" };
  }
  yield* pause(world, 8);
  const { route } = router;
  const isOurs = route.cell === cell && route.epoch === epoch && route.state !== "revoked";
  const inTime = world.now() < sentAt + left;
  if (!world.has("no-r2") && !(confirmed && isOurs && inTime)) return { kind: "unknown" };
  return { kind: "ok", cell, epoch, result };
}

const put = (table: Table, of: string, key: string, data: string): Change => ({
  kind: "put",
  table,
  tenant: of,
  key,
  data,
  origin: false,
});

/** The order, its idempotency record and its message: all or nothing. */
export function* order(fleet: Fleet, cell: Cell, of: string, value: string, keySuffix = "") {
  const key = `${value}${keySuffix}`;
  let ref = "";
  const written = yield* transact(fleet.world, cell, of, () => {
    ref = read(cell, "idempotency", of, key) ?? "";
    if (ref !== "") return { changes: [], value: "" };
    ref = String(cell.sequence);
    cell.sequence += 1;
    const tables: readonly Table[] = ["orders", "idempotency", "outbox"];
    const data = { orders: value, idempotency: ref, outbox: value, registers: "" };
    const changes = tables.map((table) =>
      put(table, of, table === "idempotency" ? key : ref, data[table]),
    );
    return { changes, value };
  });
  return written === undefined ? undefined : { ref, ...written };
}

export function* customer(fleet: Fleet, name: string, times: number): Actor {
  const { world, recorder } = fleet;
  for (let n = 0; n < times; n += 1) {
    yield* pause(world, 20);
    const value = `${name}/${n}`;
    const recorded = recorder.invoke({ process: name, tenant, value });
    const told = yield* orderThrough(fleet, value);
    fleet.requests += 1;
    if (told.kind === "ok") {
      const { cell, epoch, result } = told;
      recorded.ok({ cell: cell.name, epoch, ref: result.ref });
      fleet.acknowledged.set(value, { cell, position: result.position });
    } else if (told.kind === "fail") recorded.fail("refused");
    else recorded.info("no answer");
  }
}

const triesMax = 3;

/** Up to three attempts under one key, each through some router. */
function* orderThrough(
  fleet: Fleet,
  value: string,
): Actor<Told<{ readonly ref: string; readonly position: number }>> {
  const { world } = fleet;
  let worst: "fail" | "unknown" = "fail";
  for (let tries = 0; tries < triesMax; tries += 1) {
    const router = fleet.routers[Math.floor(world.chance() * 2)];
    if (router === undefined) break;
    // A router that sends again by itself does it without the customer's key.
    const key = world.has("unsafe-replay") ? `${tries}` : "";
    const told = yield* forward(fleet, router, (cell) => order(fleet, cell, tenant, value, key));
    if (told.kind === "ok") return told;
    if (told.kind === "unknown") worst = "unknown";
    yield* pause(world, 40);
  }
  return { kind: worst };
}

export function* reader(fleet: Fleet, name: string, times: number): Actor {
  const { world, recorder } = fleet;
  for (let n = 0; n < times; n += 1) {
    yield* pause(world, 40);
    const recorded = recorder.list({ process: name, tenant });
    const router = fleet.routers[n % 2];
    if (router === undefined) return;
    const told = yield* forward(fleet, router, function* (cell) {
      yield;
      return rowsOf(cell, "orders", tenant);
    });
    if (told.kind !== "ok") recorded.fail("refused");
    else {
      const seen = told.result.map(({ key, data }) => ({ value: data, ref: key }));
      recorded.listed({ cell: told.cell.name, epoch: told.epoch, from: null, seen });
    }
  }
}

export function* registerUser(fleet: Fleet, name: string, times: number): Actor {
  const { world, recorder } = fleet;
  let expected: string | null = null;
  for (let n = 0; n < times; n += 1) {
    yield* pause(world, 40);
    const value = `${name}=${n}`;
    const recorded = recorder.swap({ process: name, tenant, register: "r", expected, value });
    const router = fleet.routers[n % 2];
    if (router === undefined) return;
    const told: Told<Found> = yield* swapThrough(fleet, router, expected, value);
    if (told.kind === "ok") {
      const found: string | null = told.result.found;
      recorded.found({ cell: told.cell.name, epoch: told.epoch, value: found });
      expected = found === expected ? value : found;
    } else if (told.kind === "fail") recorded.fail("refused");
    else recorded.info("no answer");
  }
}

type Found = { found: string | null };

const swapThrough = (
  fleet: Fleet,
  router: Router,
  expected: string | null,
  value: string,
): Actor<Told<Found>> =>
  forward(fleet, router, function* (cell): Actor<Found | undefined> {
    const answer: Found = { found: null };
    const written = yield* transact(fleet.world, cell, tenant, () => {
      answer.found = read(cell, "registers", tenant, "r") ?? null;
      const fits = answer.found === expected;
      return { changes: fits ? [put("registers", tenant, "r", value)] : [], value: "" };
    });
    return written === undefined ? undefined : answer;
  });

/** A cron job of the cell: writes past no gate, as long as its database lets it. */
export function* cronJob(fleet: Fleet, cell: Cell, times: number): Actor {
  const { world, recorder } = fleet;
  const process = `cron-${cell.name}`;
  for (let n = 0; n < times; n += 1) {
    yield* pause(world, 60);
    if (cell.owned.get(tenant)?.state !== "active") continue;
    const value = `${process}/${n}`;
    const recorded = recorder.invoke({ process, tenant, value });
    const written = yield* order(fleet, cell, tenant, value);
    if (written === undefined) recorded.fail("refused by the guard");
    // The commit may have stalled: before it counts on it, it asks as the gate does (rule R2).
    else if (leaseLeft(world, cell) <= 0) recorded.info("the lease is over");
    else {
      const { epoch, ref, position } = written;
      recorded.ok({ cell: cell.name, epoch, ref });
      fleet.acknowledged.set(value, { cell, position });
    }
  }
}

/** Sends each message once: claims it past the guard, sends, settles. For ever. */
export function* outboxWorker(fleet: Fleet, cell: Cell): Actor {
  const { world, recorder } = fleet;
  for (;;) {
    yield* pause(world, 30);
    const isMine = () => cell.owned.get(tenant)?.state === "active" || world.has("free-outbox");
    const waiting = rowsOf(cell, "outbox", tenant).find(({ data }) => data !== "done");
    if (!isMine() || waiting === undefined) continue;
    const { key, data } = waiting;
    if (!world.has("free-outbox")) {
      const claimed = yield* transact(world, cell, tenant, () =>
        read(cell, "outbox", tenant, key) === "done" ? undefined : { changes: [], value: "" },
      );
      if (claimed === undefined) continue;
    }
    const settle = () => ({ changes: [put("outbox", tenant, key, "done")], value: "" });
    // The claim is the settlement here: a message that was claimed and not sent is not tried again.
    const settled = yield* transact(world, cell, tenant, () =>
      read(cell, "outbox", tenant, key) === "done" ? undefined : settle(),
    );
    if (settled === undefined && !world.has("free-outbox")) continue;
    if (fleet.dedupes && fleet.received.has(key)) continue;
    fleet.received.add(key);
    recorder.effect({ tenant, id: key, value: data });
  }
}

/** Grants leases to a cell as long as `granted` says so. Returns nothing; the cell keeps what it has. */
export function* leaseOf(fleet: Fleet, cell: Cell, grants: { until: number; on: boolean }): Actor {
  const { world } = fleet;
  for (;;) {
    const asked = { sentAt: world.now(), boot: cell.boot };
    yield* pause(world, 30);
    if (!grants.on) return;
    grants.until = world.now() + leaseSteps;
    world.start(takeGrant(world, cell, asked));
    yield* pause(world, 60);
  }
}

function* takeGrant(
  world: World,
  cell: Cell,
  { sentAt, boot }: { readonly sentAt: number; readonly boot: number },
): Actor {
  yield* pause(world, 60);
  if (cell.boot !== boot) return;
  const from = world.has("lease-from-response") ? world.now() : sentAt;
  cell.lease = { until: Math.max(cell.lease.until, from + leaseSteps), boot };
}
