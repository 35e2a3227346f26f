/**
 * What an annex of this machine consists of, and what is said of it.
 *
 * What must always be true: a process that waits for a failover is no part of it yet; it is proved dead
 * only when its host's server is, and its own where it has one.
 */
import { join } from "node:path";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";
import type { ProvidedCell } from "../contract/provider-api.ts";
import type { AnnexOf } from "./annex-note.ts";
import { type AnnexServer, createAnnexServer, type OriginServer } from "./annex-server.ts";
import {
  type CellsOptions,
  createParts,
  type Parts,
  reachOf,
  secretsOf,
  stateOfUnits,
} from "./cell-parts.ts";
import type { DatabaseUnit } from "./database-unit.ts";
import { isProvedDead } from "./proof-of-death.ts";
import type { Unit } from "./unit.ts";

export type Annex = Parts & {
  readonly of: AnnexOf;
  /** Of a physical one. */
  readonly server: AnnexServer | undefined;
  serving: boolean;
  leaving: boolean;
  made: boolean;
  settled: boolean;
  schema: string | undefined;
  busy: number;
  queue: Promise<unknown>;
};

/** What an annex needs of the cell that it stands in. */
export type Host = {
  readonly id: CellId;
  readonly home: string;
  readonly database: DatabaseUnit;
  readonly databaseFolder: string;
  /** Changes to its server's roles and databases, one after the other: PostgreSQL refuses two at once. */
  readonly makers: { queue: Promise<unknown> };
  /** A cell of this machine; undefined: there is none of that name. */
  readonly originOf: (id: CellId) => OriginServer | undefined;
};

export type Place = {
  readonly host: Host;
  readonly options: CellsOptions;
  readonly isUp: () => boolean;
};

/** Those that have to do with what it does now: processes that wait for a failover are none yet. */
export const unitsOfAnnex = (annex: Annex): readonly Unit[] => [
  ...serversOf(annex),
  ...programsOf(annex),
];

export const serversOf = ({ server, made }: Annex): readonly Unit[] =>
  server !== undefined && made ? [server.unit] : [];

export const programsOf = (annex: Annex): readonly Unit[] => [
  annex.agent,
  ...annex.apps.filter((app) => mayServe(annex) || app.status().state === "running"),
];

/** The application has nothing to stand on before the server with the rows is the annex's. */
const mayServe = (annex: Annex): boolean => annex.serving && isHome(annex);
export const isHome = ({ server, settled }: Annex): boolean => server === undefined || settled;

export function describeAnnex(annex: Annex, { host, options }: Place): ProvidedCell {
  if (annex.leaving || annex.ports === undefined) return absent(annex.id);
  const { agent, apps, serving } = annex;
  const units = [host.database, ...serversOf(annex), agent, ...(mayServe(annex) ? apps : [])];
  return {
    id: annex.id,
    ...stateOfUnits(units, annex.busy > 0),
    ...reachOf(annex, options.application),
    serving,
    provedDead:
      annex.busy === 0 &&
      [
        { unit: host.database, folder: host.databaseFolder },
        ...(annex.server === undefined ? [] : [annex.server]),
      ].every(({ unit, folder }) =>
        isProvedDead({
          programs: [agent, ...apps],
          notes: options.folder.notes,
          database: { unit, name: unit.name, folder },
        }),
      ),
  };
}

export const absent = (id: CellId): ProvidedCell => ({
  id,
  state: "absent",
  text: "not on this machine",
  services: {},
  stores: {},
});

export function newAnnex(
  about: { readonly id: CellId; readonly home: string; readonly of: AnnexOf | undefined },
  { databaseFolder }: Host,
  options: CellsOptions,
): Annex {
  const { id, home, of } = about;
  if (of === undefined)
    throw new CellError("CELL_UNKNOWN", `there is no cell ${id} on this machine`);
  const parts = createParts({ id, home, shownAs: of.host }, options);
  const folder = join(databaseFolder, "annexes", id);
  const secrets = secretsOf({ home });
  const server =
    of.provider === "logical" ? undefined : createAnnexServer({ id, folder, secrets }, options);
  const state = { of, server, serving: false, leaving: false, made: false, settled: false };
  return Object.assign(parts, {
    ...{ ...state, schema: undefined, busy: 0, queue: Promise.resolve() },
  });
}
