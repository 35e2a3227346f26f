/** Every kind of operation and the machine that runs it. */

import {
  cellCordon,
  cellDestroy,
  cellKill,
  cellStart,
  cellStop,
  cellUncordon,
} from "./cell-action.ts";
import { cellCreate } from "./cell-create.ts";
import { cellAdopt, cellStage } from "./cell-stage.ts";
import type { OpWorld } from "./machine.ts";
import { drawMachine, type Machine, type OpTurn, turnOp } from "./machine.ts";
import { overrideCreate, overrideDelete } from "./override.ts";
import { placements } from "./placements.ts";
import { publish } from "./publish.ts";
import { tenantCreate } from "./tenant-create.ts";
import { tenantDelete } from "./tenant-delete.ts";
import { tenantResume, tenantSuspend } from "./tenant-life.ts";

export const opKinds = [
  "tenant.create",
  "tenant.import",
  "tenant.suspend",
  "tenant.resume",
  "tenant.delete",
  "keyspace.create",
  "override.create",
  "override.delete",
  "routing.update",
  "claim.change",
  "token.revoke",
  "cell.create",
  "cell.adopt",
  "cell.stage",
  "cell.stores",
  "cell.cordon",
  "cell.uncordon",
  "cell.kill",
  "cell.stop",
  "cell.start",
  "cell.destroy",
  "fleet.recover",
  "safety.change",
] as const;
export type OpKind = (typeof opKinds)[number];

type Entry = {
  readonly first: string;
  readonly deadlineMs: (step: string) => number | undefined;
  readonly turn: (world: OpWorld) => OpTurn;
  readonly drawing: string;
};

const entry = <Step extends string, Event extends string>(
  machine: Machine<Step, Event>,
): Entry => ({
  first: machine.first,
  deadlineMs: (step) => {
    const known = machine.steps.find((one) => one === step);
    return known === undefined ? undefined : machine.deadlinesMs[known];
  },
  turn: (world) => turnOp(machine, world),
  drawing: drawMachine(machine),
});

export const opMachines: Readonly<Record<OpKind, Entry>> = {
  "tenant.create": entry(tenantCreate),
  "tenant.import": entry(placements),
  "tenant.suspend": entry(tenantSuspend),
  "tenant.resume": entry(tenantResume),
  "tenant.delete": entry(tenantDelete),
  "keyspace.create": entry(placements),
  "override.create": entry(overrideCreate),
  "override.delete": entry(overrideDelete),
  "routing.update": entry(publish),
  "claim.change": entry(publish),
  // Revoked in the transaction that records it: it is born done, and its machine never runs.
  "token.revoke": entry(publish),
  "cell.create": entry(cellCreate),
  "cell.adopt": entry(cellAdopt),
  "cell.stage": entry(cellStage),
  // Written in the transaction that records it: born done, as above.
  "cell.stores": entry(publish),
  "cell.cordon": entry(cellCordon),
  "cell.uncordon": entry(cellUncordon),
  "cell.kill": entry(cellKill),
  "cell.stop": entry(cellStop),
  "cell.start": entry(cellStart),
  "cell.destroy": entry(cellDestroy),
  "safety.change": entry(publish),
  // Recorded at the end of a recovery: what it gave new epochs becomes active as cells apply it.
  "fleet.recover": entry(placements),
};

export const parseOpKind = (raw: string): OpKind | undefined =>
  opKinds.find((kind) => kind === raw);
