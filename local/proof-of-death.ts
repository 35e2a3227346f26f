/**
 * Is a cell certainly gone? Only a yes ends the wait for promises before others take its tenants over
 * (contract/provider-api.ts, `provedDead`), so every doubt is a no.
 *
 * It looks at the machine, not at what we remember: a postmaster that died alone leaves backends that
 * can still commit, and a supervisor that was killed leaves everything.
 */
import { isProvedGone } from "./node-process.ts";
import { dataDirOf } from "./postgres/server.ts";
import { noneIn } from "./process-identity.ts";
import type { Unit } from "./unit.ts";

export type Remains = {
  /** Application and agent. */
  readonly programs: readonly Unit[];
  /** Where their notes lie. */
  readonly notes: string;
  readonly database: {
    readonly unit: Unit;
    /** Of the server, as in `cluster_name`. */
    readonly name: string;
    readonly folder: string;
  };
};

export function isProvedDead({ programs, notes, database }: Remains): boolean {
  const units = [...programs, database.unit];
  // Something that is being started may have a process that nobody has noted yet.
  if (units.some((unit) => unit.status().state === "running" || !unit.isSettled())) return false;
  return (
    programs.every(({ name }) => isProvedGone(notes, name)) &&
    isServerGone(database.name, dataDirOf(database.folder))
  );
}

/** Postmaster and backends. */
const isServerGone = (name: string, dataDir: string): boolean =>
  noneIn(dataDir, (command) => looksLikeServer(command, name, dataDir));

/** A backend names the server in its title; the postmaster the folder in its arguments. */
export const looksLikeServer = (command: string, name: string, dataDir: string): boolean =>
  command.startsWith(`postgres: ${name}: `) || command.trimEnd().endsWith(`-D ${dataDir}`);
