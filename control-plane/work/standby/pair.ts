/**
 * A standby as the calls into databases want it: the logins of both sides, resolved in this process and
 * kept in memory alone, and the keyspaces whose tables are streamed.
 */
import type { Cell } from "../../../contract/control-api.ts";
import { CellError } from "../../../contract/errors.ts";
import { type CellId, cellIdSchema } from "../../../contract/ids.ts";
import { compareBytes } from "../../../contract/placement-key.ts";
import type { StoreLogin } from "../../../moving/ports.ts";
import type { StandbyPair } from "../../../standby/ports.ts";
import type { StandbyView } from "../../core/standby/standby-view.ts";
import type { Reader } from "../../store/database.ts";
import { cellStores } from "../../store/fleet-store.ts";
import { routedKeyspaces } from "../../store/standby/read.ts";
import type { ResolveSecret } from "../moving/task.ts";

type Stores = Cell["stores"];

/** Throws STANDBY_BROKEN where a side has no store of a name, or says no login for the mover. */
export async function buildPair(
  reader: Reader,
  resolve: ResolveSecret,
  one: Pick<StandbyView, "annex" | "origin" | "host" | "buckets" | "provider">,
  /** `may-be-gone`: only the origin is spoken to; the annex may have been removed, and its secrets with it. */
  annexIs: "there" | "may-be-gone" = "there",
): Promise<StandbyPair> {
  const origin = cellIdSchema.parse(one.origin);
  const annex = cellIdSchema.parse(one.annex);
  const originStores = await cellStores(reader, one.origin);
  const annexStores = await cellStores(reader, one.annex);
  const stores = databasesOf(originStores);
  if (stores.length === 0) {
    throw new CellError("STANDBY_BROKEN", `${one.origin} has no database that could be streamed.`);
  }
  return {
    ...{ annex, origin, host: cellIdSchema.parse(one.host) },
    ...{ kind: one.provider, buckets: one.buckets },
    keyspaces: await routedKeyspaces(reader),
    stores: await Promise.all(
      stores.map(async (name) => ({
        name,
        origin: await loginOf(resolve, origin, originStores, name),
        annex: await loginOf(resolve, annex, annexStores, name).catch((error: unknown) => {
          if (annexIs === "there") throw error;
          return { cell: annex, store: name, url: nowhere };
        }),
      })),
    ),
  };
}

/** A login that every use of fails with, as of a server that is gone. */
const nowhere = "postgres://127.0.0.1:1/gone";

/** A database that says `ignore` holds nothing of tenants. */
const databasesOf = (stores: Stores): string[] =>
  Object.entries(stores)
    .filter(([, store]) => (store.kind ?? "postgres") === "postgres" && store.ignore !== true)
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
    const what = stores[store] === undefined ? "has no such store" : "names no login for the mover";
    throw new CellError("STANDBY_BROKEN", `Store ${store}: ${cell} ${what}.`, {
      details: { cell, store },
      nextSteps: [
        `Give the mover's role a login, and name its reference in stores.${store}.mover of ${cell}.`,
      ],
    });
  }
  return { cell, store, url: await resolve(mover) };
}
