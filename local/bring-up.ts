/**
 * Starts the parts of a fleet in the order that they need, and says when the whole works: when a
 * request has come back through a router.
 *
 * A cell that does not come back is told and left: it must not cost the others their start.
 */
import type { CellId } from "../contract/ids.ts";
import type { GuardMode } from "../contract/routing-table.ts";
import type { Clock } from "../runtime/clock.ts";
import type { LocalCells } from "./cell-processes.ts";
import type { FleetClient, RoutingRules } from "./fleet-client.ts";
import type { FleetUnits } from "./fleet-units.ts";
import { answersOk, statusOf } from "./http-probe.ts";
import type { FleetPorts } from "./ports.ts";
import { urlOf } from "./programs.ts";

export type FleetParts = {
  readonly ports: FleetPorts;
  readonly cells: LocalCells;
  readonly units: FleetUnits;
  readonly api: FleetClient;
  readonly wishes: FleetWishes;
};

/** What an application's own file asks of the fleet. */
export type FleetWishes = {
  readonly routing: RoutingRules | undefined;
  readonly guardMode: GuardMode | undefined;
  /** Made when they are missing. */
  readonly tenants: readonly string[];
  /** Answers 200 for each of these tenants; undefined: what an application answers is its own matter. */
  readonly path: string | undefined;
};

export type BringUpOptions = {
  /** How many cells there must be; `cell-01` and so on. */
  readonly cells: number;
  readonly clock: Clock;
  readonly say: (line: string) => void;
};

const demoTenants = ["acme", "globex", "initech", "hooli", "umbrella"] as const;

/** Of the sample application. */
export const sampleWishes = (demo: boolean): FleetWishes => ({
  routing: undefined,
  guardMode: undefined,
  tenants: demo ? demoTenants : [],
  path: samplePath,
});

/** What the sample application answers any tenant with. */
export const samplePath = "/whoami";

const serveWithinMs = 60_000;
const servePauseMs = 50;

export async function bringUp(
  parts: FleetParts,
  options: BringUpOptions,
  aborted: AbortSignal,
): Promise<void> {
  const { cells, units, api, wishes } = parts;
  const { clock, say } = options;
  const step = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    const startedMs = clock.monotonicMs();
    await work();
    aborted.throwIfAborted();
    say(`${name}  ${((clock.monotonicMs() - startedMs) / 1000).toFixed(1)} s`);
  };
  const startRouter = (router: FleetRouter) => step(router.name, () => router.start(api));
  const broken: CellId[] = [];
  const startKnown = async (id: CellId) => {
    try {
      await step(id, () => cells.act(id, "start"));
    } catch {
      broken.push(id); // Its unit has said why.
      aborted.throwIfAborted();
    }
  };
  // What is known needs no control plane to start; on the first start nothing is.
  const known = cells.ids();
  const { routers, newRouters } = await sortRouters(units);
  await all([
    step("control plane", units.startControlPlane),
    ...routers.map(startRouter),
    cells.migrateAnnexes().then(() => all(known.map(startKnown))),
    known.length === 0 && options.cells > 0 ? cells.prepare() : Promise.resolve(),
  ]);
  if (wishes.guardMode !== undefined) await api.ensureGuardMode(wishes.guardMode);
  if (wishes.routing !== undefined) await api.ensureRouting(wishes.routing);
  // Also those that run: the control plane may not have heard of them, or not have finished them.
  const wanted = Array.from({ length: options.cells }, (_, index) => cellName(index + 1));
  await all([
    ...newRouters.map(startRouter),
    ...wanted.map(async (id) => {
      if (known.some((one) => one === id)) await api.ensureCell(id);
      else await step(id, () => api.ensureCell(id));
    }),
  ]);
  const tenants = options.cells === 0 ? [] : wishes.tenants;
  if (tenants.length > 0) {
    const name = wishes.path === undefined ? "tenants" : "demo tenants";
    await step(name, () => all(tenants.map((id) => api.ensureTenant(id))));
  }
  await step("traffic", () => waitForTraffic(parts, { ...options, tenants, broken }, aborted));
  // Standbys come when everybody is served; a stop ends them like all else.
  void cells.wakeAnnexes();
}

type FleetRouter = FleetUnits["routers"][number];

async function sortRouters(units: FleetUnits) {
  const routers: FleetRouter[] = [];
  const newRouters: FleetRouter[] = [];
  for (const router of units.routers) {
    ((await router.isKnown()) ? routers : newRouters).push(router);
  }
  return { routers, newRouters };
}

/** A request that comes back is the only proof that a fleet works. */
async function waitForTraffic(
  { cells, ports, units, wishes }: FleetParts,
  about: BringUpOptions & {
    readonly tenants: readonly string[];
    readonly broken: readonly CellId[];
  },
  aborted: AbortSignal,
): Promise<void> {
  const { clock, say, tenants, broken } = about;
  const router = urlOf(ports.routers[0]?.port ?? 0);
  const served: Array<{ what: string; check: () => Promise<boolean> }> = [
    ...units.routers.map(({ name }, index) => ({
      what: name,
      check: () => answersOk(`${urlOf(ports.routers[index]?.adminPort ?? 0)}/readyz`),
    })),
    ...cells
      .ids()
      .filter((id) => !broken.includes(id))
      .map((id) => ({
        what: id,
        check: () => answersOk(`${urlOf(cells.ports(id)?.admin ?? 0)}/readyz`),
      })),
    ...(wishes.path === undefined ? [] : tenants).map((tenant) => ({
      what: `tenant ${tenant}`,
      check: async () => {
        const status = await statusOf(`${router}${wishes.path}`, { "x-tenant-id": tenant });
        // A typed refusal is the right answer for a tenant of a cell that is down.
        return status === 200 || (status === 503 && broken.length > 0);
      },
    })),
  ];
  const deadline = clock.monotonicMs() + serveWithinMs;
  await all(
    served.map(async ({ what, check }) => {
      while (!(await check())) {
        aborted.throwIfAborted();
        if (clock.monotonicMs() > deadline) {
          // On a folder with history this may be right: a cell may be quarantined, a tenant gone.
          say(`${what} does not serve yet; cellctl status says why`);
          return;
        }
        await clock.sleep(servePauseMs, aborted);
      }
    }),
  );
}

/** Every one is waited for, also when another failed: nothing may still be starting while we stop. */
async function all(work: ReadonlyArray<Promise<unknown>>): Promise<void> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

const cellName = (number: number): string => `cell-${String(number).padStart(2, "0")}`;
