/**
 * The keys of a move in the ownership of one cell's database, as far as rows may be copied in or removed.
 *
 * What must always be true: rows of a key are touched only while its line says that nobody writes here,
 * and that line is locked until the touch is committed; a command of a smaller attempt is refused.
 */
import type pg from "pg";
import { applyOwnership, type ChangeOutcome } from "../cell/store/ownership.ts";
import { sqlStateOf } from "../cell/store/queryable.ts";
import type { OwnershipState } from "../contract/cell-protocol.ts";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { MoveTask, StoreLogin } from "./ports.ts";

const lockTimeoutMs = 200;
const triesMax = 25;
const triesPauseMs = 100;
const endMsMax = 10_000;

/**
 * From here on nothing of a smaller attempt is obeyed in this database. What an executor that died was
 * about to do in a session of this name ends too: two that drop the same thing at once get in each other's way.
 */
export async function noteAttempt(client: pg.Client, task: MoveTask): Promise<void> {
  try {
    await client.query("select cellfleet.note_attempt($1, $2)", [task.op, task.attempt]);
    await client.query(
      `select pg_terminate_backend(pid, $1) from pg_stat_activity
        where application_name = current_setting('application_name') and datname = current_database()
          and pid <> pg_backend_pid()`,
      [endMsMax],
    );
  } catch (error) {
    if (sqlStateOf(error) !== "55000") throw error;
    throw superseded(task, error);
  }
}

const superseded = (task: MoveTask, cause: unknown): CellError =>
  new CellError("STATE_CONFLICT", `Another executor has taken ${task.op} over`, {
    nextSteps: [`cellctl move show ${task.op}`],
    cause,
  });

type KeyLine = {
  readonly key: string;
  readonly state: OwnershipState;
  readonly epoch: number;
  readonly op: string;
};

async function readLines(client: pg.Client, task: MoveTask): Promise<KeyLine[]> {
  const { rows } = await client.query<KeyLine>(
    `select key, state, epoch::float8 as epoch, op from cellfleet.ownership where key = any ($1) order by key`,
    [task.keys.map(({ key }) => key)],
  );
  return rows;
}

/**
 * The target's keys become `importing` under this attempt. Refused where a key is served, and in a cell
 * whose guard lets unknown keys be written: what stands there might be somebody's only copy.
 */
export async function claimKeys(
  client: pg.Client,
  task: MoveTask,
  login: StoreLogin,
  clock: Clock,
): Promise<void> {
  const { rows } = await client.query<{ stage: string }>("select stage from cellfleet.stage");
  if (rows[0]?.stage !== "enforce") {
    throw unfit(
      `Cell ${login.cell} is in stage ${rows[0]?.stage}: rows of keys that it does not own may be in use there`,
      `cellctl cell stage ${login.cell} enforce`,
    );
  }
  const served = (await readLines(client, task)).find(
    ({ state }) => state === "active" || state === "fenced",
  );
  if (served !== undefined) {
    throw unfit(
      `${served.key} is ${served.state} in cell ${login.cell} at epoch ${served.epoch}`,
      `cellctl explain placement ${served.key}`,
    );
  }
  await applyAll(client, task, { login, state: "importing", clock });
}

/**
 * Before the point of no return: nothing of the keys is meant to be here any more. `moved`, not `dropped`:
 * a tenant above a container would fall back to it, and the container may be served here.
 */
export async function disownKeys(
  client: pg.Client,
  task: MoveTask,
  login: StoreLogin,
  clock: Clock,
): Promise<void> {
  await applyAll(client, task, { login, state: "moved", clock });
}

/**
 * How the target stands to a move that is undone: `ours`: rows may be there; `none`: it never got so far,
 * or was undone already; `served`: the rows are not the move's to remove.
 */
export async function readClaim(
  client: pg.Client,
  task: MoveTask,
): Promise<"ours" | "none" | "served"> {
  const lines = await readLines(client, task);
  if (lines.some(({ state }) => state === "active" || state === "fenced")) return "served";
  return lines.some(({ op, state }) => op === task.op && state === "importing") ? "ours" : "none";
}

async function applyAll(
  client: pg.Client,
  task: MoveTask,
  options: {
    readonly login: StoreLogin;
    readonly state: OwnershipState;
    readonly clock: Clock;
  },
): Promise<void> {
  const { login, state, clock } = options;
  const changes = task.keys.map(({ key, epoch }) => ({
    ...{ key, state, epoch },
    ...{ op: task.op, attempt: task.attempt },
  }));
  const { rows } = await client.query<{ revision: string }>(
    "select applied_revision as revision from cellfleet.progress",
  );
  for (let tries = 1; ; tries += 1) {
    const { outcomes, busy } = await applyOwnership(client, {
      changes,
      // What the agent has applied stays what it was: this is no change of the routing table.
      revision: Number(rows[0]?.revision ?? 0),
      lockTimeoutMs,
    });
    const refused = outcomes.find(({ outcome }) => outcome === "refused");
    if (refused !== undefined) throw refusal(refused, task, login);
    if (busy.length === 0) return;
    if (tries >= triesMax) {
      throw unfit(
        `Transactions in cell ${login.cell} hold ${busy.join(", ")} and do not end`,
        "look for long transactions in pg_stat_activity, then try again",
      );
    }
    await clock.sleep(triesPauseMs);
  }
}

function refusal(stands: ChangeOutcome, task: MoveTask, login: StoreLogin): CellError {
  if (stands.op === task.op) return superseded(task, undefined);
  return unfit(
    `${stands.key} is ${stands.state} in cell ${login.cell} by ${stands.op} at epoch ${stands.epoch}, which is newer than this move`,
    `cellctl explain placement ${stands.key}`,
  );
}

const unfit = (text: string, fix: string): CellError =>
  new CellError("MOVE_UNFIT", `${text}; nothing was changed`, { nextSteps: [fix] });

/** Inside a transaction that touches rows: all keys stand so, and stay so until it ends. */
export async function holdKeys(
  client: pg.Client,
  task: MoveTask,
  state: "importing" | "moved",
): Promise<void> {
  const { rows } = await client.query<{ held: number }>(
    `select count(*)::integer as held from (
       select from cellfleet.ownership
        where key = any ($1) and state = $2 and ($2 = 'moved' or (op = $3 and attempt = $4))
          for share) k`,
    [task.keys.map(({ key }) => key), state, task.op, task.attempt],
  );
  if (rows[0]?.held === task.keys.length) return;
  throw new CellError(
    "STATE_CONFLICT",
    `Not all keys of ${task.op} are ${state} here: their rows are left alone`,
    { nextSteps: [`cellctl move show ${task.op}`] },
  );
}
