/** What an agent writes to its log: changes of state, never a line per request or per failed attempt. */
import type { Log, LogFields } from "../../runtime/log.ts";

export type AgentEvents = {
  "agent.started": { cell: string; instance: string; endpoint: string; admin: string };
  "agent.stopped": { cell: string };
  "step.failed": LogFields;
  "database.found": { boot: string; keys: number; revision: number };
  "database.lost": LogFields;
  "primary.gained": { instance: string };
  "primary.lost": { instance: string };
  "lease.held": { grant: number; forMs: number };
  "lease.lost": { reason: string };
  "lease.refused": { reason: string };
  "lease.expire-failed": LogFields;
  "control-plane.found": { origin: string };
  "control-plane.lost": LogFields;
  "fleet.refused": { mine: string; theirs: string };
  "ownership.refused": { key: string; state: string; epoch: number };
  "ownership.delayed": { revision: number; keys: number };
  "ids.refused": { sequence: string; lo: number; hi: number };
  "answer.failed": LogFields;
  "answer.refused": { id: string } & LogFields;
  "stage.delayed": { stage: string };
  "stage.changed": { from: string; to: string };
  "purge.done": { key: string; rows: number };
  "purge.failed": { key: string } & LogFields;
  "replica.found": { replica: string };
  "replica.lost": { replica: string; reason: string };
  "table.applied": { revision: number; by: string; placements: number };
  "table.refused": { reason: string; text: string; where: string };
  "table.not-written": LogFields;
  "table.lost": LogFields;
  "table.found": LogFields;
  "stats.failed": LogFields;
  "app.found": { upstream: string };
  "app.lost": { upstream: string; reason: string };
};
export type AgentLog = Log<AgentEvents>;
