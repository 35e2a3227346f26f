/**
 * Connections of the mover that are open before they are needed: each new one costs some 10 ms, and the
 * switch has to do without.
 *
 * Always true: a session is used by one piece of work at a time; one that failed, or that does not answer
 * for some seconds, is thrown away with all that are idle there, and work that met such a leftover is done
 * once more on a new one (all of it may be repeated); what nobody used for a minute is closed.
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
  /** What is open there now is not used again: not what is idle, nor what is in use, when it is given back. */
  readonly discard: (login: StoreLogin) => void;
  readonly close: () => Promise<void>;
};

type Use = "kept" | "discarded";
type Idle = { readonly session: StoreSession; readonly expiry: Timer };

const idleMs = 60_000;
const purpose = "switch";
/** Requests wait meanwhile. Nothing that the switch asks waits for a lock for as long as this. */
const answerMsMax = 3000;
/** The first call of a function reads it and plans what it does: for the fence, longer than the fence itself. */
const rehearsal = `select cellfleet.fence_for_move('[]', 50, '', '', 0, '');
  select cellfleet.unfence_for_move('[]', 50);
  select from cellfleet.apply_ownership('[]', null, 50);
  select from cellfleet.gates_open('', 0);
  select 1 from cellfleet.move_marker where op = '' and name = ''`;

/** By the database that they are open to. */
function createIdleSessions(clock: Clock) {
  const idle = new Map<string, Idle[]>();
  const keep = (url: string, sessions: Idle[]) => {
    if (sessions.length > 0) idle.set(url, sessions);
    else idle.delete(url);
  };
  const closeAll = async (url: string): Promise<void> => {
    const all = idle.get(url) ?? [];
    idle.delete(url);
    for (const { expiry } of all) expiry.cancel();
    await Promise.all(all.map(({ session }) => session.close()));
  };
  return {
    count: (url: string): number => idle.get(url)?.length ?? 0,
    put: (session: StoreSession): void => {
      const { url } = session.login;
      const expire = () => {
        const all = idle.get(url) ?? [];
        keep(
          url,
          all.filter((one) => one.session !== session),
        );
        void session.close();
      };
      const expiry = clock.after(idleMs, expire, { background: true });
      idle.set(url, [...(idle.get(url) ?? []), { session, expiry }]);
    },
    /** Used before, a session has what it runs planned; so the other end is for work that spends it. */
    take: (url: string, end: "last used" | "first used"): StoreSession | undefined => {
      const all = idle.get(url) ?? [];
      const taken = all.at(end === "last used" ? -1 : 0);
      if (taken === undefined) return undefined;
      keep(
        url,
        all.filter((one) => one !== taken),
      );
      taken.expiry.cancel();
      return taken.session;
    },
    closeAll,
    close: async (): Promise<void> => {
      await Promise.all([...idle.keys()].map(closeAll));
    },
  };
}

export function createConnections(clock: Clock): Connections {
  const idle = createIdleSessions(clock);
  const inUse = new Map<StoreSession, Use>();
  let closed = false;

  const open = (login: StoreLogin) => openStoreSession(login, purpose, undefined, answerMsMax);

  function discard({ url }: StoreLogin): void {
    void idle.closeAll(url);
    for (const session of inUse.keys()) {
      if (session.login.url === url) inUse.set(session, "discarded");
    }
  }

  /** Nobody waits for a farewell. */
  function giveBack(session: StoreSession, use: Use): void {
    if (closed || use === "discarded") void session.close();
    else idle.put(session);
  }

  /** With the session that it worked on, or did not work on. */
  async function run<T>(
    login: StoreLogin,
    work: (session: StoreSession) => Promise<T>,
    onFailed: (session: StoreSession, use: Use) => void,
    end: "last used" | "first used" = "last used",
  ): Promise<{ readonly result: T; readonly session: StoreSession; readonly use: Use }> {
    const kept = idle.take(login.url, end);
    const session = kept ?? (await open(login));
    inUse.set(session, "kept");
    const useOf = (): Use => {
      const use = inUse.get(session) ?? "discarded";
      inUse.delete(session);
      return use;
    };
    try {
      return { result: await work(session), session, use: useOf() };
    } catch (error) {
      const use = useOf();
      if (!isLost(error)) {
        onFailed(session, use);
        throw error;
      }
      void session.close();
      // What is idle there is as old, and each of them would be waited for as long.
      discard(login);
      if (kept === undefined) throw error;
      return await run(login, work, onFailed, end);
    }
  }

  async function openWarm(login: StoreLogin): Promise<void> {
    const session = await open(login);
    try {
      await session.query(rehearsal);
    } catch (error) {
      void session.close();
      throw error;
    }
    giveBack(session, "kept");
  }

  return {
    warm: async (login, count) => {
      const missing = Math.max(0, count - idle.count(login.url));
      await Promise.allSettled(Array.from({ length: missing }, () => openWarm(login)));
    },
    use: async (login, work) => {
      const { result, session, use } = await run(login, work, giveBack);
      giveBack(session, use);
      return result;
    },
    spend: async (login, work) =>
      (await run(login, work, (session) => void session.close(), "first used")).result,
    discard,
    close: async () => {
      closed = true;
      await idle.close();
    },
  };
}

const isLost = (error: unknown): boolean =>
  error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";
