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
  "stats.failed": LogFields;
  "app.found": { upstream: string };
  "app.lost": { upstream: string; reason: string };
};
export type AgentLog = Log<AgentEvents>;
