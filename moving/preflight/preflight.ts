/** Is the move possible, and how large is it? `PreflightPort` over real databases. Changes nothing. */
import { DatabaseError } from "pg";
import { CellError } from "../../contract/errors.ts";
import type { MovePlan } from "../../contract/move-api.ts";
import type { HookPort, MoveTask, PreflightPort, StoreLogin } from "../ports.ts";
import { openStoreSession } from "../store-session.ts";
import { estimateMove } from "./estimate.ts";
import { type PreflightLimits, readStoreFacts } from "./facts.ts";
import { judgeMove, type LookedStore, packOf, type StoreLook } from "./judge.ts";

/** Of one statement: a catalog that somebody has locked must not hold a look at it up. */
const statementMsMax = 15_000;
const lockMsMax = 1000;
const defaultLimits: PreflightLimits = { longTransactionMs: 30_000, keyTransactionMs: 5000 };

export function createPreflight(
  hooks: Pick<HookPort, "checks">,
  limits: PreflightLimits = defaultLimits,
): PreflightPort {
  return {
    look: async (task) => {
      const stores: LookedStore[] = await Promise.all(
        task.stores.map(async ({ name, source, target }) => ({
          name,
          source: await lookAt(source, task, limits),
          target: await lookAt(target, task, limits),
        })),
      );
      const tables = stores.flatMap(sizesOf);
      const estimate = estimateMove(tables, stores.length);
      const checks = [...judgeMove(task, stores, estimate.copyMs), ...hooks.checks(task)];
      return {
        tables,
        estimate,
        checks,
        fit: checks.every(({ verdict }) => verdict !== "refused"),
      };
    },
  };
}

async function lookAt(
  login: StoreLogin,
  task: MoveTask,
  limits: PreflightLimits,
): Promise<StoreLook> {
  try {
    const session = await openStoreSession(login, "preflight");
    try {
      await session.query(
        `set statement_timeout = ${statementMsMax}; set lock_timeout = ${lockMsMax}`,
      );
      return { facts: await readStoreFacts(session, task, limits) };
    } finally {
      await session.close();
    }
  } catch (error) {
    return { unreachable: whyNot(login, error) };
  }
}

/** What is no answer of a database is a fault of ours, and is thrown. */
function whyNot({ cell, store }: StoreLogin, error: unknown): string {
  if (error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE")
    return error.message;
  if (!(error instanceof DatabaseError)) throw error;
  return `The database of store ${store} in cell ${cell} did not let the mover look (${error.code}): ${error.message}`;
}

const sizesOf = ({ name, source }: LookedStore): MovePlan["tables"] =>
  (packOf(source)?.sizes ?? []).map(({ table, rows, bytes }) => ({
    store: name,
    table,
    rows,
    bytes,
  }));
