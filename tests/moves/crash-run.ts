/**
 * One crash: a tenant that is being written to moves, something is killed at one moment, comes back, and
 * the move must end by itself, done or taken back, with nothing left over and the tenant served.
 */
import type pg from "pg";
import { until } from "../fleet.ts";
import type { CrashCase, Victim } from "./crash-cases.ts";
import { leftoversIn, rowsOf } from "./leftovers.ts";
import type { MoveClient } from "./move-client.ts";
import type { StoppingFleet } from "./stopping-fleet.ts";

export type CrashWorld = StoppingFleet & { readonly moves: MoveClient };

export type CrashOutcome = {
  readonly case: string;
  /** How the move ended. */
  readonly ended: string;
  /** What is not as it must be; empty: as it must be. */
  readonly faults: readonly string[];
};

export const nameOf = ({ step, when, victim }: CrashCase): string => `${when} ${step}: ${victim}`;

const cellsOf = ["cell-01", "cell-02"] as const;
const endsWithinMs = 180_000;
export async function runCrash(
  fleet: CrashWorld,
  crash: CrashCase,
  tenant: string,
): Promise<CrashOutcome> {
  const source = await cellOf(fleet, tenant);
  const target = cellsOf.find((cell) => cell !== source) ?? source;
  const { control } = fleet;
  let hurdle: Hurdle | undefined;
  try {
    // Before it begins: the first steps are over in no time.
    const stands = control.standAt({ of: "move", ...crash });
    const started = await startMove(fleet, crash, tenant, target);
    hurdle = await onTheWay(fleet, crash, started, { source, tenant });
    await stands;
    await strike(fleet, crash.victim, { source, target });
    // What is dead stays dead for a moment, while the executor already goes on.
    control.goOn();
    await revive(fleet, crash.victim, { source, target });
    await hurdle?.end();
    const ended = await endOf(fleet, started);
    return { case: nameOf(crash), ended, faults: await faultsAfter(fleet, tenant) };
  } finally {
    await hurdle?.end();
  }
}

async function cellOf(fleet: CrashWorld, tenant: string): Promise<string> {
  return (await fleet.moves.resolve(tenant)).cell;
}

async function startMove(
  fleet: CrashWorld,
  { way }: CrashCase,
  tenant: string,
  target: string,
): Promise<string> {
  const mode = way === "whole" ? "auto" : "manual";
  const options = { switch: mode, soakMs: 0, pauseBudgetMs: 2000 } as const;
  let id = "";
  // A cell that has just been started again may not be healthy yet, and then nothing moves.
  await until("a move begins", async () => {
    id = await fleet.moves.start([tenant], target, options).then(
      (move) => move.id,
      () => "",
    );
    return id !== "";
  });
  return id;
}

type Hurdle = { readonly end: () => Promise<void> };

/** What leads to the step where it does not come by itself. */
async function onTheWay(
  fleet: CrashWorld,
  { way }: CrashCase,
  move: string,
  { source, tenant }: { readonly source: string; readonly tenant: string },
): Promise<Hurdle | undefined> {
  if (way === "whole") return undefined;
  await fleet.moves.reaches(move, "ready");
  const hurdle = way === "blocked" ? await block(fleet, source, tenant) : undefined;
  await fleet.moves.act(move, way === "blocked" ? "switch" : "cancel");
  return hurdle;
}

/** A transaction of the tenant that does not end: the fence waits for it. */
async function block(fleet: CrashWorld, cell: string, tenant: string): Promise<Hurdle> {
  let end: () => void = () => {};
  const told = new Promise<void>((resolve) => {
    end = resolve;
  });
  const { promise: holds, resolve: nowHolds } = Promise.withResolvers<void>();
  const held = fleet.inCell(cell, async (client: pg.Client) => {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock_shared(cellfleet.lock_key($1))", [
      `default/tenant/${tenant}`,
    ]);
    nowHolds();
    await told;
    // A crash of the server has ended it already.
    await client.query("rollback").catch(() => undefined);
  });
  await holds;
  return {
    end: async () => {
      end();
      await held;
    },
  };
}

type Sides = { readonly source: string; readonly target: string };

async function strike(fleet: CrashWorld, victim: Victim, sides: Sides): Promise<void> {
  switch (victim) {
    case "control-plane":
      return fleet.control.kill();
    case "source-app":
      return fleet.killProcess(`${sides.source}-app`);
    case "target-app":
      return fleet.killProcess(`${sides.target}-app`);
    case "source-database":
      return fleet.killDatabase(sides.source);
    case "target-database":
      return fleet.killDatabase(sides.target);
    case "router":
      return fleet.killProcess("router-01");
  }
}

/** Cells stay dead until somebody starts them; the supervisor starts the router again. */
async function revive(fleet: CrashWorld, victim: Victim, sides: Sides): Promise<void> {
  if (victim === "control-plane") return fleet.control.start();
  if (victim === "router") return;
  const cell = victim.startsWith("source") ? sides.source : sides.target;
  await until(
    `${cell} starts`,
    async () => (await fleet.cli("cell", "start", cell, "--wait")).code === 0,
  );
}

async function endOf(fleet: CrashWorld, move: string): Promise<string> {
  let last = "";
  await until(
    `the end of ${move}`,
    async () => {
      // A control plane that is being taken over does not answer.
      const now = await fleet.moves.get(move).catch(() => undefined);
      last = now === undefined ? last : `${now.step}: ${now.headline}`;
      return now !== undefined && !["pending", "running"].includes(now.state);
    },
    endsWithinMs,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; it was ${last}`);
  });
  return last;
}

async function faultsAfter(fleet: CrashWorld, tenant: string): Promise<readonly string[]> {
  // A move that another one takes back, and what is swept, end a little later than the move itself.
  let faults: readonly string[] = [];
  await until(
    "nothing is left over",
    async () => {
      faults = await faultsNow(fleet, tenant);
      return faults.length === 0;
    },
    60_000,
  ).catch(() => undefined); // What is left is the answer.
  return faults;
}

async function faultsNow(fleet: CrashWorld, tenant: string): Promise<readonly string[]> {
  const faults: string[] = [];
  const owner = await cellOf(fleet, tenant).catch(() => "nobody");
  for (const cell of cellsOf) {
    const found = await fleet
      .inCell(cell, async (client) => ({
        left: await leftoversIn(client),
        rows: cell === owner ? 0 : await rowsOf(client, tenant),
      }))
      .catch((error: unknown) => ({ left: [String(error)], rows: 0 }));
    faults.push(...found.left.map((what) => `${cell}: ${what}`));
    if (found.rows > 0)
      faults.push(`${cell}: ${found.rows} rows of ${tenant}, which ${owner} owns`);
  }
  const answer = await fleet
    .ask(tenant, "POST", "/orders", { item: "after the crash", quantity: 1 })
    .catch((error: unknown) => ({ status: 0, text: String(error) }));
  if (answer.status !== 201)
    faults.push(`${tenant} is not served: ${answer.status} ${answer.text}`);
  return faults;
}
