/**
 * Connections of the mover that are open before they are needed: each new one costs some 10 ms, and the
 * switch has to do without.
 *
 * Always true: a session is used by one piece of work at a time; one that failed is thrown away, and
 * work that met such a leftover of a restarted server is done once more on a new one (all of it may be
 * repeated); what nobody used for a minute is closed.
 */
import { CellError } from "../../contract/errors.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";
import type { StoreLogin } from "../ports.ts";
import { openStoreSession, type StoreSession } from "../store-session.ts";

export type Connections = {
  /** So many are idle afterwards; those that cannot be opened are somebody else's to report. */
  readonly warm: (login: StoreLogin, count: number) => Promise<void>;
  readonly use: <T>(login: StoreLogin, work: (session: StoreSession) => Promise<T>) => Promise<T>;
  /** As `use`, but the session stays the work's own, which closes it; after a failure it is closed here. */
  readonly spend: <T>(login: StoreLogin, work: (session: StoreSession) => Promise<T>) => Promise<T>;
  readonly close: () => Promise<void>;
};

type Idle = { readonly session: StoreSession; readonly expiry: Timer };

const idleMs = 60_000;
const purpose = "switch";

export function createConnections(clock: Clock): Connections {
  const idle = new Map<string, Idle[]>();
  let closed = false;

  function put(session: StoreSession): void {
    const { url } = session.login;
    const expiry = clock.after(
      idleMs,
      () => {
        const rest = (idle.get(url) ?? []).filter((one) => one.session !== session);
        if (rest.length > 0) idle.set(url, rest);
        else idle.delete(url);
        void session.close();
      },
      { background: true },
    );
    idle.set(url, [...(idle.get(url) ?? []), { session, expiry }]);
  }

  /** The one that was used last. */
  function takeIdle({ url }: StoreLogin): StoreSession | undefined {
    const all = idle.get(url) ?? [];
    const last = all.at(-1);
    if (last === undefined) return undefined;
    if (all.length > 1) idle.set(url, all.slice(0, -1));
    else idle.delete(url);
    last.expiry.cancel();
    return last.session;
  }

  const giveBack = (session: StoreSession): Promise<void> | void =>
    closed ? session.close() : put(session);

  /** With the session that it worked on, or did not work on. */
  async function run<T>(
    login: StoreLogin,
    work: (session: StoreSession) => Promise<T>,
    onFailed: (session: StoreSession) => Promise<void> | void,
  ): Promise<{ readonly result: T; readonly session: StoreSession }> {
    const kept = takeIdle(login);
    const session = kept ?? (await openStoreSession(login, purpose));
    try {
      return { result: await work(session), session };
    } catch (error) {
      if (!isLost(error)) await onFailed(session);
      else await session.close();
      if (kept === undefined || !isLost(error)) throw error;
      return await run(login, work, onFailed);
    }
  }

  return {
    warm: async (login, count) => {
      const missing = count - (idle.get(login.url)?.length ?? 0);
      const opened = await Promise.allSettled(
        Array.from({ length: missing }, () => openStoreSession(login, purpose)),
      );
      for (const one of opened) if (one.status === "fulfilled") put(one.value);
    },
    use: async (login, work) => {
      const { result, session } = await run(login, work, giveBack);
      await giveBack(session);
      return result;
    },
    spend: async (login, work) => (await run(login, work, (session) => session.close())).result,
    close: async () => {
      closed = true;
      const all = [...idle.values()].flat();
      idle.clear();
      for (const { expiry } of all) expiry.cancel();
      await Promise.all(all.map(({ session }) => session.close()));
    },
  };
}

const isLost = (error: unknown): boolean =>
  error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";
