/**
 * The rows of a move's keys from a snapshot of the source into the target, table by table.
 *
 * What must always be true: what is copied in is committed only while the keys are still `importing` under
 * this attempt; rows go straight from one socket to the other with backpressure, a few buffers at a time;
 * when one table fails, all stop, and both servers see their connections end.
 */
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { CellError } from "../contract/errors.ts";
import { moveErrorOf, openMover } from "./connection.ts";
import type { Rate } from "./copy-rate.ts";
import { rowFilter } from "./filters.ts";
import type { MoveTask, StoreLogin } from "./ports.ts";
import { holdKeys } from "./residue-claim.ts";
import type { MovedTable } from "./streams-tables.ts";

/** Values read the same on both sides, whatever the roles or databases were set to. */
const sameForms =
  "set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 3; set timezone = 'UTC'; set bytea_output = 'hex'; set xmloption = 'content'; set client_encoding = 'UTF8'";
/** Tables at a time: one that reads while one writes keeps both servers busy without taking all they have. */
const lanesMax = 2;

export type TableCopy = {
  readonly task: MoveTask;
  readonly source: StoreLogin;
  readonly target: StoreLogin;
  /** Of every connection. */
  readonly application: string;
  readonly snapshot: string;
  readonly tables: readonly MovedTable[];
  readonly rate: Rate;
  readonly onBytes: (bytes: number) => void;
  readonly onTable: (rows: number) => void;
  readonly signal: AbortSignal;
};

type Lane = { readonly source: pg.Client; readonly target: pg.Client };

/**
 * `onImported`: all connections see the snapshot, so who exported it may go. Rejects with what went wrong
 * first.
 */
export async function copyTables(copy: TableCopy, onImported: () => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([copy.signal, stop.signal]);
  const lanes: Lane[] = [];
  // Largest first: the last table to end should not be the one that takes longest.
  const left = copy.tables.toSorted((one, other) => other.bytes - one.bytes);
  try {
    for (let n = 0; n < Math.min(lanesMax, left.length); n += 1) {
      copy.signal.throwIfAborted();
      lanes.push(await openLane(copy));
    }
    await onImported();
    const closeAll = () => {
      // In the middle of a copy, `end` cuts the socket; a stream that waits for an answer fails with it.
      for (const { source, target } of lanes) {
        void source.end().catch(() => {});
        void target.end().catch(() => {});
      }
    };
    signal.addEventListener("abort", closeAll, { once: true });
    const results = await Promise.allSettled(
      lanes.map(async (lane) => {
        try {
          for (let table = left.shift(); table !== undefined; table = left.shift()) {
            await copyTable(copy, lane, table, signal);
          }
        } catch (error) {
          stop.abort(error);
          throw error;
        }
      }),
    );
    copy.signal.throwIfAborted();
    if (stop.signal.aborted) throw stop.signal.reason;
    if (results.some(({ status }) => status === "rejected")) throw new Error("a copy failed");
  } finally {
    await Promise.all(
      lanes.flatMap(({ source, target }) => [
        source.end().catch(() => {}), // It may be closed by now.
        target.end().catch(() => {}),
      ]),
    );
  }
}

async function openLane({ source, target, application, snapshot }: TableCopy): Promise<Lane> {
  const options = { name: application, statementMsMax: 0 };
  const from = await openMover(source, options);
  let at = source;
  try {
    await from.query(sameForms);
    await from.query("begin isolation level repeatable read read only");
    await from
      .query(`set transaction snapshot ${pg.escapeLiteral(snapshot)}`)
      .catch((error: unknown) => {
        throw snapshotGone(source, error);
      });
    at = target;
    const into = await openMover(target, options);
    await into.query(sameForms);
    await into.query("set session_replication_role = replica");
    await into.query("set synchronous_commit = on");
    return { source: from, target: into };
  } catch (error) {
    await from.end().catch(() => {}); // The error above is what matters.
    throw moveErrorOf(at, error);
  }
}

/** Only while the connection that exported it lives: so that one was lost. */
const snapshotGone = (source: StoreLogin, cause: unknown): CellError =>
  new CellError(
    "CELL_DATABASE_UNREACHABLE",
    `The connection to store ${source.store} of cell ${source.cell} that held the copy's snapshot has ended`,
    { nextSteps: [`cellctl cell get ${source.cell}`], cause },
  );

async function copyTable(
  copy: TableCopy,
  { source, target }: Lane,
  table: MovedTable,
  signal: AbortSignal,
): Promise<void> {
  const columns = table.columns.map((column) => pg.escapeIdentifier(column)).join(", ");
  const form = table.binary ? "format binary" : "format text";
  // Whose failure it is: the first to fail takes the other with it.
  let failed: StoreLogin = copy.target;
  try {
    await target.query("begin");
    await holdKeys(target, copy.task, "importing");
    const out = source.query(
      copyTo(
        `copy (select ${columns} from ${table.partitioned ? "" : "only "}${table.name}
                where ${rowFilter(copy.task, table.key)}) to stdout (${form})`,
      ),
    );
    out.once("error", () => {
      failed = copy.source;
    });
    const into = target.query(copyFrom(`copy ${table.name} (${columns}) from stdin (${form})`));
    await pipeline(
      out,
      async function* counted(chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          await copy.rate.take(chunk.length, signal);
          copy.onBytes(chunk.length);
          yield chunk;
        }
      },
      into,
      { signal },
    );
    await target.query("commit");
    copy.onTable(into.rowCount);
  } catch (error) {
    throw moveErrorOf(failed, error);
  }
}
