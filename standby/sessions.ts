/**
 * Connections for looking at streams, which is done every second: kept open while they are used.
 *
 * Always true: a session that failed is thrown away, and work that met such a leftover of a restarted
 * server is done once more on a new one; what nobody used for a while is closed. Looking only: several may
 * ask on one session, and none may begin a transaction.
 */
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import type { StoreLogin } from "../moving/ports.ts";
import { openStoreSession, type StoreSession } from "../moving/store-session.ts";
import type { Clock, Timer } from "../runtime/clock.ts";

export type Sessions = {
  readonly use: <T>(login: StoreLogin, work: (client: Queryable) => Promise<T>) => Promise<T>;
  /** A database that is being removed must have nobody in it. */
  readonly discard: (login: StoreLogin) => Promise<void>;
  readonly close: () => Promise<void>;
};

/** A server that stands still must not keep who asks about all the others. */
const answerMsMax = 3000;
const idleMs = 15_000;

type Kept = { readonly session: StoreSession; users: number; expiry: Timer };

export function createSessions(clock: Clock): Sessions {
  const kept = new Map<string, Kept>();

  const throwAway = async (one: Kept): Promise<void> => {
    one.expiry.cancel();
    const { url } = one.session.login;
    if (kept.get(url) === one) kept.delete(url);
    await one.session.close();
  };

  const restIn = (one: Kept): void => {
    one.expiry.cancel();
    const rest = () => void (one.users === 0 ? throwAway(one) : restIn(one));
    one.expiry = clock.after(idleMs, rest, { background: true });
  };

  const open = async (login: StoreLogin): Promise<Kept> => {
    const session = await openStoreSession(login, "standby state", undefined, answerMsMax);
    const one: Kept = { session, users: 0, expiry: { cancel: () => {} } };
    const other = kept.get(login.url);
    // Somebody was quicker: one of the two is enough.
    if (other !== undefined) {
      await session.close();
      return other;
    }
    kept.set(login.url, one);
    return one;
  };

  const on = async <T>(one: Kept, work: (client: Queryable) => Promise<T>): Promise<T> => {
    one.users += 1;
    try {
      return await work(one.session);
    } catch (error) {
      await throwAway(one);
      throw error;
    } finally {
      one.users -= 1;
      if (kept.get(one.session.login.url) === one) restIn(one);
    }
  };

  return {
    use: async (login, work) => {
      const leftover = kept.get(login.url);
      if (leftover !== undefined) {
        try {
          return await on(leftover, work);
        } catch (error) {
          if (!isUnreachable(error)) throw error;
        }
      }
      return on(await open(login), work);
    },
    discard: async (login) => {
      const one = kept.get(login.url);
      if (one !== undefined) await throwAway(one);
    },
    close: async () => {
      await Promise.all([...kept.values()].map(throwAway));
    },
  };
}

const isUnreachable = (error: unknown): boolean =>
  error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";
