/**
 * `cellctl check --database-url`: reads the facts of a user's database over one connection (a second
 * one, for a moment, where a pooler may stand between) and judges them. Changes nothing.
 */
import type pg from "pg";
import { openUserDatabase, readOnly, type UserDatabase, withUserDatabase } from "../connection.ts";
import { type Pooling, readGrantFacts, readServerFacts, versionMin } from "./facts.ts";
import type { PreflightRole } from "./grant-needs.ts";
import type { PreflightItem } from "./item.ts";
import { judgePreflight } from "./judge.ts";
import { settingsRead } from "./server-needs.ts";

export type PreflightQuestion = {
  readonly database: UserDatabase;
  readonly role: PreflightRole;
  /** The application's role, when it is not the one of the URL. */
  readonly appRole: string | undefined;
};

/** A catalog that somebody has locked must not hold a look at it up. */
const statementMsMax = 15_000;

export function checkUserDatabase(question: PreflightQuestion): Promise<PreflightItem[]> {
  return withUserDatabase(question.database, async (client) => {
    const pooling = await findPooling(client, question.database);
    const facts = await readOnly(client, { statementMsMax }, async () => {
      const server = await readServerFacts(client, settingsRead);
      const appRole =
        question.appRole ?? (question.role === "app" ? await userOf(client) : undefined);
      // Older servers lack what would be asked for.
      const grants =
        server.version < versionMin ? undefined : await readGrantFacts(client, appRole);
      return { server, grants };
    });
    return judgePreflight({ ...facts, pooling }, question.role);
  });
}

async function userOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ name: string }>("select current_user as name");
  return rows[0]?.name ?? "";
}

/**
 * A pooler hands out a process number of its own invention at login: it differs from what PostgreSQL
 * says. Two connections, both open, that are served by one process share it by transaction.
 */
async function findPooling(client: pg.Client, database: UserDatabase): Promise<Pooling> {
  const pid = await backendOf(client);
  const announced: unknown = Reflect.get(client, "processID");
  if (announced === pid) return "none";
  const second = await openUserDatabase(database);
  try {
    return (await backendOf(second)) === pid ? "transaction" : "session";
  } finally {
    await second.end().catch(() => {}); // It was only opened to be compared.
  }
}

async function backendOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  return rows[0]?.pid ?? 0;
}
