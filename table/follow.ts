/**
 * The signed routing table, followed: from disk at once, so that it is there when the control plane is
 * not; then from the control plane, for as long as it can be reached. The router serves requests from
 * it, a cell's agent answers `/resolve`; neither is known here.
 *
 *   const followed = await followTable({ ... });  // what the disk had is there now
 *   followed.start();                             // from now on the control plane is asked
 *   followed.view()?.lookup(keyspace, tenant);
 *   await followed.close();
 *
 * What must always be true: nothing is believed that the control plane did not sign, nothing goes back
 * to an older revision, and no failure here ends the process: it serves what it has.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CellError } from "../contract/errors.ts";
import type { TableState } from "../contract/table-state.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { createVerifier, publicKeysSchema, type Verifier } from "../runtime/signing.ts";
import type { SyncReport, TableEvent } from "./events.ts";
import { TableFile } from "./file.ts";
import { imageKeyOf } from "./image-key.ts";
import { type TableChanged, TableStore } from "./store.ts";
import { type CollectHeard, TableSync } from "./sync.ts";

export type FollowTableOptions = {
  /** Of the control plane, without a slash at its end. */
  readonly url: string;
  /** POSTed to, with the request and answer of a router's sync (`contract/cell-protocol.ts`). */
  readonly path: string;
  readonly token: string;
  /** The router's id, or the cell's. */
  readonly id: string;
  /** A folder of this follower's own, made if it is not there. */
  readonly stateDir: string;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly random: Random;
  /** Read anew for each call; absent: there is nothing to report. */
  readonly report?: () => SyncReport;
  /** In the same turn as each change of the table, after it is complete. */
  readonly onChange?: TableChanged;
  /**
   * Before each call: what was changed may have to arrive elsewhere, too, before it is acknowledged.
   * Absent: it is served as soon as it is changed.
   */
  readonly settled?: () => Promise<void>;
  /**
   * The control plane asks for something of its own, by an answer that brought nothing newer: the table
   * that it knows is served. `instance`: as this follower calls itself.
   */
  readonly onCollect?: CollectHeard;
  /** For logs and metrics; must not throw. */
  readonly onEvent?: (event: TableEvent) => void;
};

export type FollowedTable = {
  /** Undefined until there is one. The same object moves on with each delta; a snapshot replaces it. */
  readonly view: () => TableState | undefined;
  /** Begins to ask the control plane; once. */
  readonly start: () => void;
  /** The table seems to be old: asks at once, at most once a second. */
  readonly refresh: () => void;
  /** There is something to report that should not wait: calls soon, at most twice a second. */
  readonly tell: () => void;
  /**
   * Since the control plane last said that nothing newer exists, be it to an earlier process on this
   * disk; undefined before `start` when nobody ever heard from it.
   */
  readonly ageMs: () => number | undefined;
  /** What the next process would find on the disk; 0: nothing. */
  readonly storedRevision: () => number;
  readonly close: () => Promise<void>;
};

/**
 * Resolves when what the disk had is read, be it nothing: what it does not give is refused, like what is
 * damaged. Throws CONFIG_INVALID when there can be no such folder.
 */
export async function followTable(options: FollowTableOptions): Promise<FollowedTable> {
  const { clock, random, verifier, stateDir } = options;
  const onEvent = options.onEvent ?? (() => {});
  // Nobody outside knows the key, so nobody can choose ids that all fall into one place.
  const word = () => Number.parseInt(random.hex(4), 16) | 0;
  const hashKey = [word(), word()] as const;
  const file = new TableFile(stateDir, verifier, hashKey, { key: imageKeyOf(options.token) });
  const store = new TableStore(options.onChange ?? (() => {}));
  await restore({ file, store, onEvent, clock, stateDir });
  const heardMs = onMonotonic(clock, file.heardAtMs);
  let sync: TableSync | undefined;
  return {
    view: store.view,
    start: () => {
      const {
        settled = async () => {},
        url,
        path,
        token,
        id,
        report = () => ({ admin: "", seen: [] }),
        onCollect = () => {},
      } = options;
      sync ??= new TableSync({
        ...{ settled, url, path, token, id, report, onCollect, clock, random },
        ...{ onEvent, store, file, verifier, hashKey, heardMs },
      });
      sync.start();
    },
    refresh: () => sync?.refresh(),
    tell: () => sync?.tell(),
    ageMs: () => sync?.ageMs ?? (heardMs === undefined ? undefined : clock.monotonicMs() - heardMs),
    storedRevision: () => file.storedRevision,
    close: async () => {
      await sync?.close();
      await file.close();
    },
  };
}

/** A time of the wall's clock on this process's own; one that lies ahead, by a clock set back, is now. */
const onMonotonic = (clock: Clock, atMs: number | undefined): number | undefined =>
  atMs === undefined ? undefined : clock.monotonicMs() - Math.max(0, clock.nowMs() - atMs);

/** Throws CONFIG_INVALID; `setting` is what the path was given as. */
export async function readTrustKeys(path: string, setting: string): Promise<Verifier> {
  try {
    return createVerifier(publicKeysSchema.parse(JSON.parse(await readFile(path, "utf8"))));
  } catch (error) {
    throw new CellError("CONFIG_INVALID", `${setting} ${path} is no list of public keys.`, {
      cause: error,
    });
  }
}

/** From disk, before anybody is asked: the control plane may be gone. */
async function restore(parts: {
  readonly file: TableFile;
  readonly store: TableStore;
  readonly onEvent: (event: TableEvent) => void;
  readonly clock: Clock;
  readonly stateDir: string;
}): Promise<void> {
  const { file, store, onEvent, clock, stateDir } = parts;
  const startedMs = clock.monotonicMs();
  await mkdir(stateDir, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new CellError("CONFIG_INVALID", `--state-dir ${stateDir} cannot be made a folder.`, {
      cause,
    });
  });
  const restored = await file.restore();
  if (restored.image !== undefined) {
    onEvent({ ...restored.image, where: join(stateDir, "table.image") });
  }
  if (restored.memory !== undefined) {
    onEvent({ ...restored.memory, where: join(stateDir, "seen.json") });
  }
  if (restored.kind === "absent") return;
  if (restored.kind === "refused") {
    onEvent({ ...restored, where: stateDir });
    return;
  }
  const { table, damaged } = restored;
  if (damaged !== undefined) onEvent({ ...damaged, where: stateDir });
  store.replace(table, file.fleet);
  const ms = clock.monotonicMs() - startedMs;
  onEvent({ kind: "applied", by: "file", from: null, table, ms });
  // For the next start; this one need not wait for it.
  file.keepCopies(table).catch((error: unknown) => onEvent({ kind: "not-written", error }));
}
