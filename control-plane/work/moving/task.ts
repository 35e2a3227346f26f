/**
 * A move as the calls into databases want it: both cells' logins, resolved in this process and kept in
 * memory alone, and how far each key reaches.
 */
import type { Cell } from "../../../contract/control-api.ts";
import { CellError } from "../../../contract/errors.ts";
import { type CellId, parseCellId } from "../../../contract/ids.ts";
import { compareBytes } from "../../../contract/placement-key.ts";
import type { MoveTask, StoreLogin } from "../../../moving/ports.ts";
import { must } from "../../../runtime/assert.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import type { Reader } from "../../store/database.ts";
import { cellIds, cellStores } from "../../store/fleet-store.ts";
import { readTaskFacts } from "../../store/moves/task-facts.ts";
import { followerIds } from "../../store/standby/read.ts";

export type ResolveSecret = (reference: string) => Promise<string>;
type Stores = Cell["stores"];

export async function buildTask(
  reader: Reader,
  resolve: ResolveSecret,
  view: Pick<MoveView, "id" | "attempt" | "keyspace" | "keys" | "source" | "target" | "reverses">,
): Promise<MoveTask> {
  const facts = await readTaskFacts(reader, { ...view, keys: view.keys.map(({ key }) => key) });
  const { sourceStores, targetStores } = facts;
  const names = storesOf(sourceStores, "postgres");
  return {
    ...{ op: view.id, attempt: view.attempt, source: view.source, target: view.target },
    ...{ keyspace: facts.keyspace, reverses: view.reverses },
    keys: view.keys.map(({ key, epoch }) => {
      const bounds = must(
        facts.bounds.find((one) => one.key === key),
        `bounds of ${key}`,
      );
      return { key, epoch, until: bounds.until, overrides: bounds.overrides };
    }),
    stores: await Promise.all(
      names.map(async (name) => ({
        name,
        source: await loginOf(resolve, view.source, sourceStores, name),
        target: await loginOf(resolve, view.target, targetStores, name),
      })),
    ),
    external: externalOf(sourceStores, targetStores),
  };
}

/** A database that says `ignore` holds nothing of tenants. */
/** A reference that cannot be resolved now leaves its store out. */
export async function readAllLogins(
  reader: Reader,
  resolve: ResolveSecret,
): Promise<readonly StoreLogin[]> {
  const logins: StoreLogin[] = [];
  const followers = await followerIds(reader);
  for (const id of await cellIds(reader)) {
    if (followers.has(id)) continue;
    const cell = must(parseCellId(id), "cell id");
    const stores = await cellStores(reader, id);
    for (const store of storesOf(stores, "postgres")) {
      const mover = stores[store]?.mover;
      const url = mover === undefined ? undefined : await resolve(mover).catch(() => undefined);
      if (url !== undefined) logins.push({ cell, store, url });
    }
  }
  return logins;
}

const storesOf = (stores: Stores, kind: "postgres" | "external"): string[] =>
  Object.entries(stores)
    .filter(([, store]) => (store.kind ?? "postgres") === kind)
    .filter(([, store]) => kind === "external" || store.ignore !== true)
    .map(([name]) => name)
    .sort(compareBytes);

async function loginOf(
  resolve: ResolveSecret,
  cell: CellId,
  stores: Stores,
  store: string,
): Promise<StoreLogin> {
  const mover = stores[store]?.mover;
  if (mover === undefined) {
    const what = stores[store] === undefined ? "has no such store" : "names no login for moves";
    throw new CellError("MOVE_UNFIT", `Store ${store}: ${cell} ${what}. Nothing was changed.`, {
      details: { cell, store },
      nextSteps: [
        `Give the role that moves tenants a login, and name its reference in stores.${store}.mover of ${cell}.`,
        "cellctl check --database-url REF --role mover",
      ],
    });
  }
  return { cell, store, url: await resolve(mover) };
}

function externalOf(source: Stores, target: Stores): MoveTask["external"] {
  const names = new Set([...storesOf(source, "external"), ...storesOf(target, "external")]);
  const side = (stores: Stores, name: string) => {
    const store = stores[name];
    return store === undefined ? null : { hook: store.hook, ignore: store.ignore ?? false };
  };
  return [...names].sort(compareBytes).map((name) => ({
    name,
    source: side(source, name),
    target: side(target, name),
  }));
}
