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
/** The first call of a function reads it and plans what it does: for the fence, longer than the fence itself. */
const rehearsal = `select cellfleet.fence_for_move('[]', 50, '', '', 0, '');
  select cellfleet.unfence_for_move('[]', 50);
  select from cellfleet.apply_ownership('[]', null, 50);
  select from cellfleet.gates_open('', 0);
  select 1 from cellfleet.move_marker where op = '' and name = ''`;

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

  /** Used before, a session has what it runs planned; so the other end is for work that spends it. */
  function takeIdle(
    { url }: StoreLogin,
    end: "last used" | "first used",
  ): StoreSession | undefined {
    const all = idle.get(url) ?? [];
    const taken = all.at(end === "last used" ? -1 : 0);
    if (taken === undefined) return undefined;
    const rest = all.filter((one) => one !== taken);
    if (rest.length > 0) idle.set(url, rest);
    else idle.delete(url);
    taken.expiry.cancel();
    return taken.session;
  }

  const giveBack = (session: StoreSession): Promise<void> | void =>
    closed ? session.close() : put(session);

  /** With the session that it worked on, or did not work on. */
  async function run<T>(
    login: StoreLogin,
    work: (session: StoreSession) => Promise<T>,
    onFailed: (session: StoreSession) => Promise<void> | void,
    end: "last used" | "first used" = "last used",
  ): Promise<{ readonly result: T; readonly session: StoreSession }> {
    const kept = takeIdle(login, end);
    const session = kept ?? (await openStoreSession(login, purpose));
    try {
      return { result: await work(session), session };
    } catch (error) {
      if (!isLost(error)) await onFailed(session);
      else await session.close();
      if (kept === undefined || !isLost(error)) throw error;
      return await run(login, work, onFailed, end);
    }
  }

  async function openWarm(login: StoreLogin): Promise<void> {
    const session = await openStoreSession(login, purpose);
    try {
      await session.query(rehearsal);
    } catch (error) {
      await session.close();
      throw error;
    }
    await giveBack(session);
  }

  return {
    warm: async (login, count) => {
      const missing = Math.max(0, count - (idle.get(login.url)?.length ?? 0));
      await Promise.allSettled(Array.from({ length: missing }, () => openWarm(login)));
    },
    use: async (login, work) => {
      const { result, session } = await run(login, work, giveBack);
      await giveBack(session);
      return result;
    },
    spend: async (login, work) =>
      (await run(login, work, (session) => session.close(), "first used")).result,
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
