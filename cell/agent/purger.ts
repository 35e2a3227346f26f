/**
 * Removes the rows of tenants that were deleted, in batches, in the background, and reports what it
 * removed when nothing is left.
 *
 * Always true: a key is reported only after every guarded table was counted empty of it. Nothing is
 * remembered across a restart: the control plane asks again until it has the report, and counts begin
 * anew then, so a report names what this process removed.
 */
import pg from "pg";
import type { AgentSyncRequest, OwnershipChange } from "../../contract/cell-protocol.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import { countRowsLeft, purgeRows, type RowsPerTable } from "../store/purge.ts";
import type { Queryable } from "../store/queryable.ts";
import type { AgentLog } from "./events.ts";

export type Purged = NonNullable<AgentSyncRequest["purged"]>[number];

export type PurgerOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly databaseUrl: string;
  readonly isPrimary: () => boolean;
  /** There is something to report. */
  readonly onDone: () => void;
};

type Task = {
  readonly change: OwnershipChange;
  readonly rows: Map<string, number>;
  state: "waiting" | "done" | "reported";
  said: string;
};

const batchRows = 5000;
const intervalMs = 1000;
const backoffMaxMs = 15_000;
const connectMs = 3000;
/** Counting reads whole tables where no index serves. */
const statementMs = 600_000;
const reportedMax = 1000;

export class Purger {
  readonly #options: PurgerOptions;
  readonly #tasks = new Map<string, Task>();
  readonly #loop: Loop;
  #client: pg.Client | undefined;

  constructor(options: PurgerOptions) {
    this.#options = options;
    this.#loop = startLoop({
      ...{ clock: options.clock, random: options.random, intervalMs, backoffMaxMs },
      turn: (signal) => this.#turn(signal),
      onError: () => {}, // Said where it is known which key it was.
    });
  }

  /** The very same command is under way, or done: nothing new is asked. */
  knows(change: OwnershipChange): boolean {
    const task = this.#tasks.get(change.key);
    return task !== undefined && isSame(task.change, change);
  }

  /** A command whose ownership is applied. Asked for again, a finished one is reported again. */
  hear(change: OwnershipChange): void {
    const task = this.#tasks.get(change.key);
    if (task !== undefined && isSame(task.change, change)) {
      if (task.state === "reported") task.state = "done";
      return;
    }
    // A new attempt goes on with the numbers of the last one.
    const rows = task?.change.op === change.op ? task.rows : new Map<string, number>();
    this.#tasks.set(change.key, { change, rows, state: "waiting", said: "" });
    this.#loop.wake();
  }

  /** For the next call; the same until `reported`. */
  due(): Purged[] {
    const done = [...this.#tasks.values()].filter(({ state }) => state === "done");
    return done.slice(0, reportedMax).map(({ change, rows }) => ({
      ...{ key: change.key, op: change.op, attempt: change.attempt },
      rows: Object.fromEntries([...rows].filter(([, count]) => count > 0)),
    }));
  }

  reported(purged: readonly Purged[]): void {
    for (const one of purged) {
      const task = this.#tasks.get(one.key);
      if (task !== undefined && isSame(task.change, one)) task.state = "reported";
    }
    const old = [...this.#tasks].filter(([, { state }]) => state === "reported");
    for (const [key] of old.slice(0, -reportedMax)) this.#tasks.delete(key);
  }

  async close(): Promise<void> {
    const closed = this.#loop.close();
    await this.#disconnect();
    await closed;
  }

  async #turn(stop: AbortSignal): Promise<"again" | "idle"> {
    const task = [...this.#tasks.values()].find(({ state }) => state === "waiting");
    if (task === undefined || !this.#options.isPrimary()) {
      await this.#disconnect();
      // Another agent is asked now.
      if (task !== undefined) this.#tasks.delete(task.change.key);
      return "idle";
    }
    try {
      await this.#purge(task, stop);
    } catch (error) {
      await this.#disconnect();
      this.#say(task, error, stop);
      // The others are not to wait for it.
      this.#tasks.delete(task.change.key);
      this.#tasks.set(task.change.key, task);
      throw error;
    }
    return "again";
  }

  async #purge(task: Task, stop: AbortSignal): Promise<void> {
    const { clock, log, onDone } = this.#options;
    const { key } = task.change;
    while (!stop.aborted && task.state === "waiting") {
      const client = await this.#connect();
      const startedMs = clock.monotonicMs();
      const removed = await purgeRows(client, key, batchRows);
      for (const [table, count] of Object.entries(removed)) {
        task.rows.set(table, (task.rows.get(table) ?? 0) + count);
      }
      if (sum(removed) > 0) {
        // Half of the time belongs to the application.
        await clock.sleep(clock.monotonicMs() - startedMs, stop);
        continue;
      }
      await requireNoneLeft(client, key);
      task.state = "done";
      log.event("purge.done", { key, rows: [...task.rows.values()].reduce((a, b) => a + b, 0) });
      onDone();
    }
  }

  #say(task: Task, error: unknown, stop: AbortSignal): void {
    const fields = errorFields(error);
    const said = String(fields["error"]);
    if (stop.aborted || said === task.said) return;
    task.said = said;
    this.#options.log.event("purge.failed", { key: task.change.key, ...fields }, "warn");
  }

  async #connect(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const client = new pg.Client({
      connectionString: this.#options.databaseUrl,
      connectionTimeoutMillis: connectMs,
      statement_timeout: statementMs,
      application_name: "cellfleet-agent purge",
    });
    client.on("error", () => {}); // The call that is under way fails and says so.
    this.#client = client;
    await client.connect();
    return client;
  }

  async #disconnect(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => {}); // Closing is all that is wanted.
  }
}

/** What cannot be removed must not be reported as removed. */
async function requireNoneLeft(client: Queryable, key: string): Promise<void> {
  const left = Object.entries(await countRowsLeft(client, key)).filter(([, count]) => count > 0);
  if (left.length === 0) return;
  const where = left.map(([table, count]) => `${count} in ${table}`).join(", ");
  throw new Error(`rows are left: ${where}`);
}

const sum = (rows: RowsPerTable): number => Object.values(rows).reduce((a, b) => a + b, 0);

type Command = Pick<OwnershipChange, "op" | "attempt">;
const isSame = (a: Command, b: Command): boolean => a.op === b.op && a.attempt === b.attempt;
