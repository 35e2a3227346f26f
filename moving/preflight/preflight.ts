/** Is the move possible, and how large is it? `PreflightPort` over real databases. Changes nothing. */
import { CellError } from "../../contract/errors.ts";
import type { MovePlan } from "../../contract/move-api.ts";
import { tenantsOf } from "../key-rows.ts";
import type { HookPort, MoveTask, PreflightPort, StoreLogin } from "../ports.ts";
import { openStoreSession } from "../store-session.ts";
import { estimateMove } from "./estimate.ts";
import { readStoreFacts } from "./facts.ts";
import { judgeMove, type LookedStore, packOf, type StoreLook } from "./judge.ts";

/** Of one statement: a catalog that somebody has locked must not hold a look at it up. */
const statementMsMax = 15_000;

export function createPreflight(hooks: Pick<HookPort, "checks">): PreflightPort {
  return {
    look: async (task) => {
      const stores: LookedStore[] = await Promise.all(
        task.stores.map(async ({ name, source, target }) => ({
          name,
          source: await lookAt(source, task),
          target: await lookAt(target, task),
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

async function lookAt(login: StoreLogin, task: MoveTask): Promise<StoreLook> {
  try {
    const session = await openStoreSession(login, "preflight");
    try {
      await session.query(`set statement_timeout = ${statementMsMax}`);
      return { facts: await readStoreFacts(session, task, tenantsOf(task)) };
    } finally {
      await session.close();
    }
  } catch (error) {
    if (!(error instanceof CellError) || error.code !== "CELL_DATABASE_UNREACHABLE") throw error;
    return { unreachable: error.message };
  }
}

const sizesOf = ({ name, source }: LookedStore): MovePlan["tables"] =>
  (packOf(source)?.sizes ?? []).map(({ table, rows, bytes }) => ({
    store: name,
    table,
    rows,
    bytes,
  }));
