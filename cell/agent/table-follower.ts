/**
 * The signed routing table in an agent: followed with the same code as in a router, acknowledged to
 * nobody. What the disk had is there before the control plane is asked.
 */
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import type { Random } from "../../runtime/random.ts";
import type { TableEvent } from "../../table/events.ts";
import { followTable, readTrustKeys } from "../../table/follow.ts";
import type { AgentLog } from "./events.ts";

export type TableFollower = {
  /** Undefined until there is one. */
  readonly view: () => TableState | undefined;
  readonly close: () => Promise<void>;
};

/** Throws CONFIG_INVALID for keys that cannot be read. */
export async function startTableFollower(options: {
  readonly cell: CellId;
  readonly controlPlane: string;
  readonly token: string;
  readonly trustKeys: string;
  readonly stateDir: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  /** In the same turn as each change of the table. */
  readonly onChange: (table: TableState) => void;
}): Promise<TableFollower> {
  const { cell, controlPlane, token, trustKeys, stateDir, clock, random, log } = options;
  const followed = await followTable({
    ...{ token, stateDir, clock, random, onChange: options.onChange },
    verifier: await readTrustKeys(trustKeys, "--trust-keys"),
    url: controlPlane.replace(/\/+$/, ""),
    path: "/v1/machine/agent/table-sync",
    id: cell,
    onEvent: (event) => noteEvent(log, event),
  });
  followed.start();
  return { view: followed.view, close: followed.close };
}

function noteEvent(log: AgentLog, event: TableEvent): void {
  switch (event.kind) {
    case "applied":
      // A change a second is no news; a whole table is.
      if (event.by === "delta") return;
      log.event("table.applied", {
        revision: event.table.revision,
        by: event.by,
        placements: event.table.size,
      });
      return;
    case "refused":
      log.event(
        "table.refused",
        { reason: event.reason, text: event.text, where: event.where },
        "error",
      );
      return;
    case "not-written":
      log.event("table.not-written", errorFields(event.error), "warn");
      return;
    case "sync-failed":
      if (event.first) log.event("table.lost", errorFields(event.error), "warn");
      return;
    case "synced":
      if (event.recovered) log.event("table.found", {});
      return;
    case "not-compacted":
      return; // The journal on disk stays long, which harms nobody.
  }
}
