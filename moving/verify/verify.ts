/** Are the rows of the keys the same in both cells? `VerifyPort` over real databases. */
import type { MoveVerification } from "../../contract/move-api.ts";
import { type Clock, isoTime } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import type { FrozenSnapshots } from "../frozen-snapshots.ts";
import type { MoveTask, VerifyPort } from "../ports.ts";
import { openStoreSession, refusalOf } from "../store-session.ts";
import { openPointInStream } from "./barrier.ts";
import { compareSnapshots, type SnapshotPair } from "./compare.ts";
import { readSchemaText } from "./schema-text.ts";

/**
 * One table in one cell: a snapshot this old keeps vacuum of the whole database from its work. Above it
 * the comparison ends with 57014, and the move has not been verified.
 */
const statementMsMax = 3_600_000;
const schemaMsMax = 30_000;

type ClosablePair = SnapshotPair & { readonly close: () => Promise<void> };

export function createVerify(options: {
  readonly clock: Clock;
  readonly random: Random;
  /** Of this process's `SwitchPort`: `drain` fills it. */
  readonly frozen: FrozenSnapshots;
}): VerifyPort {
  const { clock } = options;

  /** Store by store, so that no snapshot is older than it must be. */
  async function comparePairs(
    task: MoveTask,
    phase: MoveVerification["phase"],
    pairs: ReadonlyArray<() => Promise<ClosablePair>>,
  ): Promise<MoveVerification> {
    const tables: MoveVerification["tables"] = [];
    let equal = true;
    for (const open of pairs) {
      const pair = await open();
      try {
        const result = await compareSnapshots(task, pair, statementMsMax);
        tables.push(...result.lines);
        equal &&= result.equal;
      } finally {
        await pair.close();
      }
    }
    return { phase, at: isoTime(clock.nowMs()), equal, tables };
  }

  const pointsOf = (task: MoveTask, way: "forward" | "back", signal: AbortSignal) =>
    task.stores.map(({ name, source, target }) => async (): Promise<ClosablePair> => {
      const [from, to] = way === "forward" ? [source, target] : [target, source];
      const point = await openPointInStream({
        ...options,
        task,
        writer: from,
        reader: to,
        stream: task.op,
        signal,
      });
      const [here, there] =
        way === "forward" ? [point.writer, point.reader] : [point.reader, point.writer];
      return { store: name, source: here, target: there, close: () => closeAll([here, there]) };
    });

  return {
    compareBefore: (task, signal) =>
      comparePairs(task, "before-switch", pointsOf(task, "forward", signal)),
    compareAfter: async (task, signal) => {
      const frozen = options.frozen.take(task.op);
      if (frozen === undefined) {
        return comparePairs(task, "after-switch", pointsOf(task, "back", signal));
      }
      const stop = () => void closeAll(frozen.flatMap(({ source, target }) => [source, target]));
      signal.addEventListener("abort", stop, { once: true });
      try {
        return await comparePairs(
          task,
          "after-switch",
          frozen.map((pair) => async () => ({
            ...pair,
            close: () => closeAll([pair.source, pair.target]),
          })),
        );
      } finally {
        signal.removeEventListener("abort", stop);
        stop();
      }
    },
    schemaOf: async (login) => {
      const session = await openStoreSession(login, "schema");
      try {
        await session.query(`set statement_timeout = ${schemaMsMax}`);
        return await readSchemaText(session);
      } catch (error) {
        throw refusalOf(login, error);
      } finally {
        await session.close();
      }
    },
  };
}

type Closable = { readonly close: () => Promise<void> };

async function closeAll(sessions: readonly Closable[]): Promise<void> {
  await Promise.all(sessions.map((session) => session.close()));
}
