/** What the control plane shows of the fleet, from the last snapshot that its leader read. */
import { cellHealths, cellStates } from "../contract/control-api.ts";
import { release } from "../contract/release.ts";
import type { Labels, Metrics } from "../runtime/metrics.ts";
import { type FleetSnapshot, isIdleAnnex, liveRouters } from "./core/fleet.ts";

type Row = readonly [Labels, number];

export function showFleet(
  metrics: Metrics,
  options: {
    /** Undefined until this process has led: a follower shows nothing of the fleet. */
    readonly fleet: () => FleetSnapshot | undefined;
    readonly term: () => number | undefined;
  },
): void {
  const { fleet, term } = options;
  const perCell = (read: (cell: FleetSnapshot["cells"][number]) => Row[]) => () =>
    (fleet()?.cells ?? [])
      .filter((cell) => cell.state !== "retired" && !isIdleAnnex(cell))
      .flatMap(read);

  metrics.gaugeFrom("cellfleet_build_info", "The release of this process.", () => [
    [{ release, part: "control-plane" }, 1],
  ]);
  metrics.gaugeFrom("cellfleet_control_plane_leader", "1 where this process leads.", () =>
    term() === undefined ? 0 : 1,
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_leader_term",
    "The term this process leads in; 0 if it does not.",
    () => term() ?? 0,
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_revision",
    "The fleet's revision.",
    () => fleet()?.revision ?? 0,
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_audit_head_seq",
    "Entries of the audit log.",
    () => fleet()?.auditEntries ?? 0,
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_recovering",
    "1 while the control plane reconciles after a restore.",
    () => (fleet()?.mode === "recovering" ? 1 : 0),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_state",
    "1 for the state each cell is in.",
    perCell(({ id, state }) =>
      cellStates.map((one): Row => [{ cell: id, state: one }, one === state ? 1 : 0]),
    ),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_health",
    "1 for the health each cell is seen in.",
    perCell(({ id, health }) =>
      cellHealths.map((one): Row => [{ cell: id, health: one }, one === health ? 1 : 0]),
    ),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_tenants",
    "Tenants placed in each cell.",
    perCell(({ id, usage }) => [[{ cell: id }, usage.tenants]]),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_used",
    "Load placed in each cell, by resource.",
    perCell(({ id, usage }) => resourceRows(id, usage)),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_cell_capacity",
    "What each cell is made for, by resource.",
    perCell(({ id, capacity }) => resourceRows(id, capacity)),
  );
  showWork(metrics, fleet);
}

/** Routers, and operations under way. */
function showWork(metrics: Metrics, fleet: () => FleetSnapshot | undefined): void {
  metrics.gaugeFrom("cellfleet_control_plane_routers_live", "Routers that called lately.", () => {
    const now = fleet();
    return now === undefined ? 0 : liveRouters(now).length;
  });
  metrics.gaugeFrom(
    "cellfleet_control_plane_ops_open",
    "Operations that are not over, by kind and phase.",
    () => countBy(fleet()?.ops ?? []),
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_op_oldest_seconds",
    "Since the operation that has stood still for longest made a step; 0 without any.",
    () => {
      const now = fleet();
      const stood = (now?.ops ?? []).map(({ updatedAtMs }) => (now?.nowMs ?? 0) - updatedAtMs);
      return Math.max(0, ...stood) / 1000;
    },
  );
  metrics.gaugeFrom(
    "cellfleet_control_plane_router_behind",
    "Revisions that each live router is behind the fleet's.",
    () => {
      const now = fleet();
      if (now === undefined) return [];
      return liveRouters(now).map(
        ({ id, revision }): Row => [{ router: id }, Math.max(0, now.revision - revision)],
      );
    },
  );
}

function countBy(ops: FleetSnapshot["ops"]): Row[] {
  const phases = new Map<string, { readonly labels: Labels; count: number }>();
  for (const { kind, step } of ops) {
    const one = phases.get(`${kind} ${step}`) ?? { labels: { kind, phase: step }, count: 0 };
    one.count += 1;
    phases.set(`${kind} ${step}`, one);
  }
  return [...phases.values()].map(({ labels, count }): Row => [labels, count]);
}

function resourceRows(
  cell: string,
  load: { readonly tenants: number; readonly bytes: number; readonly rps: number },
): Row[] {
  return [
    [{ cell, resource: "tenants" }, load.tenants],
    [{ cell, resource: "bytes" }, load.bytes],
    [{ cell, resource: "rps" }, load.rps],
  ];
}
