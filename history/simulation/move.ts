/**
 * The executor of a planned move, which may be killed at any step and is followed by another one under a
 * greater attempt; then the way back, and the purge.
 */
import { type Cell, type Change, follow, rowsOf, type Stream, type Table, write } from "./cell.ts";
import { command, type Fleet, neighbour, publish, tenant } from "./fleet.ts";
import { type Actor, pause, type World } from "./world.ts";

export type MoveRecord = {
  readonly source: Cell;
  readonly target: Cell;
  readonly epoch: number;
  step: "copying" | "switching" | "committed" | "done";
  attempt: number;
  forward: Stream | undefined;
  back: Stream | undefined;
};

export const createMove = (fleet: Fleet, target: Cell, carried?: Stream): MoveRecord => ({
  source: fleet.route.cell,
  target,
  epoch: fleet.route.epoch,
  step: carried === undefined ? "copying" : "switching",
  // Later than every command of the move before it.
  attempt: fleet.route.epoch * 10,
  forward: carried,
  back: undefined,
});

const tables: readonly Table[] = ["orders", "registers", "idempotency", "outbox"];

/** Until it is done. Each executor but the last may be killed. */
export function* carryOut(fleet: Fleet, move: MoveRecord, killsMax: number): Actor {
  const { world } = fleet;
  for (let kills = 0; move.step !== "done"; kills += 1) {
    move.attempt += 1;
    const executor = world.start(execute(fleet, move));
    const end = world.now() + 20 + Math.floor(world.chance() * 250);
    yield () => executor.ended || (kills < killsMax && world.now() > end);
    executor.kill();
  }
}

function* execute(fleet: Fleet, move: MoveRecord): Actor {
  const { world } = fleet;
  const { attempt } = move;
  if (move.step === "switching" && attempt > fleet.route.epoch * 10 + 1)
    yield* takeBack(fleet, move);
  if (move.step === "copying") {
    yield* copy(fleet, move, attempt);
    move.step = "switching";
  }
  if (move.step === "switching") {
    yield* switchOver(fleet, move, attempt);
    move.step = "committed";
  }
  yield* finish(fleet, move, attempt);
  yield* pause(world, 30);
  move.step = "done";
}

function* takeBack(fleet: Fleet, move: MoveRecord): Actor {
  const { source, epoch, attempt } = move;
  yield* command(fleet, source, { state: "active", epoch, attempt });
  source.closed.delete(tenant);
  yield* publish(fleet, { cell: source, epoch, state: "active" }, true);
}

function* copy(fleet: Fleet, move: MoveRecord, attempt: number): Actor {
  const { world } = fleet;
  const { source, target, epoch } = move;
  yield* command(fleet, target, { state: "importing", epoch, attempt });
  if (move.forward !== undefined) move.forward.on = false;
  purge(target, tenant);
  const backFrom = world.has("copy-echo") ? target.log.length : undefined;
  const forward = createStream(world, { from: source, to: target, position: source.log.length });
  if (world.has("wide-filter")) forward.tenants.add(tenant);
  const snapshot = tables.flatMap((table) => rowsOf(source, table, tenant));
  // The stream was made for others, and its filter widened: what stands there already is not copied.
  const copied = world.has("wide-filter") ? [] : snapshot;
  const copier = world.start(copyRows(world, move, { attempt, rows: copied }));
  yield () => copier.ended;
  if (world.chance() < 0.3) rewrite(source);
  move.forward = forward;
  forward.on = true;
  move.back = createStream(world, {
    from: target,
    to: source,
    position: backFrom ?? target.log.length,
  });
}

/** The owner of the table rewrites it: emptied and filled again in one transaction. */
function rewrite(cell: Cell): void {
  const rows = [...cell.rows.values()].map((row) => ({ ...row, origin: false }));
  write(cell, [{ kind: "truncate", tenant: "", origin: false }, ...rows]);
}

function* copyRows(
  world: World,
  move: MoveRecord,
  copy: { readonly attempt: number; readonly rows: readonly Extract<Change, { kind: "put" }>[] },
): Actor {
  for (const row of copy.rows) {
    yield* pause(world, 4);
    // It holds the importing row of its attempt; a newer one makes it stop.
    const owned = move.target.owned.get(tenant);
    const mine = owned?.attempt === copy.attempt && owned.state === "importing";
    if (!mine && !world.has("old-copier")) return;
    write(move.target, [{ ...row, origin: false }]);
  }
}

const purge = (cell: Cell, of: string): void => {
  for (const [key, row] of cell.rows) if (row.tenant === of) cell.rows.delete(key);
};

export function createStream(
  world: World,
  ends: { readonly from: Cell; readonly to: Cell; readonly position: number },
  standby = false,
): Stream {
  const stream: Stream = {
    ...ends,
    tenants: new Set([tenant]),
    anyOrigin: standby ? !world.has("standby-without-origin") : world.has("both-streams"),
    truncates: world.has("default-publish"),
    skips: new Set(world.has("forgotten-table") ? (["idempotency"] as const) : []),
    on: false,
  };
  world.start(follow(world, stream));
  return stream;
}

function* switchOver(fleet: Fleet, move: MoveRecord, attempt: number): Actor {
  const { world } = fleet;
  const { source, target, epoch } = move;
  const next = { state: "active", epoch: epoch + 1, attempt } as const;
  yield* pause(world, 60);
  yield* publish(fleet, { cell: source, epoch, state: "hold" }, true);
  source.closed.add(tenant);
  yield () => (source.inside.get(tenant) ?? 0) === 0;
  yield* command(fleet, source, { state: "fenced", epoch, attempt });
  const nonce = `${epoch}.${attempt}`;
  write(source, [{ kind: "marker", nonce, tenant, origin: false }]);
  if (world.has("activate-first")) {
    yield* command(fleet, target, next);
    yield* pause(world, 60);
  }
  if (!world.has("no-drain")) yield () => target.markers.has(nonce);
  // Compare and set: an executor that was followed by another one commits nothing.
  if (move.attempt !== attempt) return;
  fleet.route = {
    revision: fleet.route.revision + 1,
    cell: target,
    epoch: epoch + 1,
    state: "hold",
  };
  move.step = "committed";
  fleet.recorder.note({
    kind: "owner",
    tenant,
    cell: target.name,
    epoch: epoch + 1,
    revision: fleet.route.revision,
  });
}

/** Only forward from here. */
function* finish(fleet: Fleet, move: MoveRecord, attempt: number): Actor {
  const { world } = fleet;
  const { source, target, epoch } = move;
  yield* command(fleet, target, { state: "active", epoch: epoch + 1, attempt });
  yield* command(fleet, source, { state: "moved", epoch, attempt });
  source.closed.delete(tenant);
  yield* publish(fleet, { cell: target, epoch: epoch + 1, state: "active" }, true);
  if (move.back === undefined) {
    move.back = createStream(world, { from: target, to: source, position: target.log.length });
  }
  if (world.has("both-streams")) move.back.on = true;
  else {
    if (move.forward !== undefined) move.forward.on = false;
    move.back.on = true;
  }
}

export function* purgeSource(fleet: Fleet, move: MoveRecord): Actor {
  yield* pause(fleet.world, 20);
  if (move.back !== undefined) move.back.on = false;
  purge(move.source, tenant);
}

/** Rows that the neighbour had before anything moved. */
export function settleNeighbour(fleet: Fleet): void {
  const [, b] = fleet.cells;
  for (const n of [1, 2, 3]) {
    const value = `${neighbour}/${n}`;
    const recorded = fleet.recorder.invoke({ process: neighbour, tenant: neighbour, value });
    const ref = `${900_000 + n}`;
    b.rows.set(`orders|${neighbour}|${ref}`, {
      kind: "put",
      table: "orders",
      tenant: neighbour,
      key: ref,
      data: value,
      origin: false,
    });
    recorded.ok({ cell: "b", epoch: 1, ref });
  }
}
