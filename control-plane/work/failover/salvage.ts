/**
 * The executor of what follows a failover when its cell has returned: salvage, apply, wipe, and the moves of
 * keys whose only copy it has. One operation after the other, in the process that leads; each may be begun
 * anew by another one after a crash.
 */
import { and, asc, eq, inArray } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../../../contract/errors.ts";
import { createLog, errorFields, type LogOptions } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import { createStandby } from "../../../standby/kinds.ts";
import type { Tx } from "../../store/database.ts";
import { databaseNowMs } from "../../store/database.ts";
import { holdsTerm } from "../../store/leader.ts";
import { changeOp, type OpChange, type OpRow } from "../../store/ops.ts";
import { op } from "../../store/schema.ts";
import type { Leadership } from "../lead.ts";
import { standbyServers } from "../standby/servers.ts";
import { bringOut } from "./gone-on-from.ts";
import { applySalvaged } from "./salvage-apply.ts";
import { readSalvaged } from "./salvage-read.ts";
import { destroyAndCreate, letBack, servesWithin } from "./salvage-wipe.ts";
import type { SalvageEvents, SalvageWorld } from "./salvage-world.ts";

export const salvageKinds = ["cell.salvage", "cell.salvage-apply", "cell.wipe"] as const;

export type SalvagingOptions = Omit<SalvageWorld, "log" | "standby"> & {
  readonly logTo: LogOptions;
  readonly lead: Pick<Leadership, "term">;
  readonly onError: (error: unknown) => void;
  /** A database that does not answer is asked for so long. Default 5 minutes. */
  readonly patienceMs?: number;
};

const intervalMs = 500;
const backoffMaxMs = 5000;
const patienceMsDefault = 5 * 60_000;

/** What an operation came to. `step`: it is not over. */
type Outcome = { readonly headline: string; readonly within?: (tx: Tx) => Promise<void> };
type Run = {
  readonly row: OpRow;
  readonly term: number;
  readonly signal: AbortSignal;
  readonly step: (
    step: string,
    headline: string,
    within?: (tx: Tx) => Promise<void>,
  ) => Promise<void>;
};

type Options = SalvagingOptions & SalvageWorld;

export function startSalvaging(given: SalvagingOptions): Pick<Loop, "wake" | "close"> {
  const { database, clock, random, lead } = given;
  const standby = createStandby({ clock, servers: standbyServers(given.provider) });
  const options: Options = { ...given, standby, log: createLog<SalvageEvents>(given.logTo) };

  async function turn(signal: AbortSignal): Promise<"again" | "idle"> {
    const term = lead.term();
    if (term === undefined) return "idle";
    const rows = await database.read
      .select()
      .from(op)
      .where(and(inArray(op.kind, [...salvageKinds]), inArray(op.state, ["pending", "running"])))
      .orderBy(asc(op.id))
      .limit(10);
    let ended = false;
    for (const row of rows) ended = (await carryOut(options, row, term, signal)) || ended;
    const begun = await bringOut(options, term);
    return ended || begun ? "again" : "idle";
  }

  const loop = startLoop({
    ...{ clock, random, intervalMs, backoffMaxMs, turn },
    onError: options.onError,
  });
  return {
    wake: loop.wake,
    close: async () => {
      await loop.close();
      await standby.close();
    },
  };
}

/** True: it is over. */
async function carryOut(
  options: Options,
  first: OpRow,
  term: number,
  signal: AbortSignal,
): Promise<boolean> {
  let row = first;
  const enter = async (change: OpChange, within?: (tx: Tx) => Promise<void>) => {
    await options.database.transaction(async (tx) => {
      if (!(await holdsTerm(tx, term))) throw new CellError("STATE_CONFLICT", "Another one leads.");
      if (!(await changeOp(tx, row, change, await databaseNowMs(tx)))) {
        throw new CellError("STATE_CONFLICT", `${row.id} was changed meanwhile.`);
      }
      await within?.(tx);
    });
    row = { ...row, version: row.version + 1, step: change.step ?? row.step };
  };
  try {
    const step: Run["step"] = (to, headline, inside) => enter({ step: to, headline }, inside);
    const { headline, within } = await workOf(row)(options, { row, term, signal, step });
    await enter({ step: "done", state: "done", headline, deadlineAtMs: null }, within);
    const { id, kind, object } = row;
    options.log.event("salvage.ended", { op: id, kind, cell: object, headline });
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    options.log.event("salvage.failing", { op: row.id, error: "", ...errorFields(error) }, "warn");
    if (!(error instanceof CellError)) throw error;
    return giveUp(options, row, error, enter);
  }
}

const worthTrying: ReadonlySet<string> = new Set(["CELL_DATABASE_UNREACHABLE", "PROVIDER_FAILED"]);

async function giveUp(
  { database, patienceMs = patienceMsDefault }: Options,
  row: OpRow,
  error: CellError,
  enter: (change: OpChange) => Promise<void>,
): Promise<boolean> {
  const sinceMs = (await databaseNowMs(database.read)) - row.createdAt.getTime();
  if (worthTrying.has(error.code) && sinceMs < patienceMs) {
    await database.read.update(op).set({ headline: error.message }).where(eq(op.id, row.id));
    return false;
  }
  const failure = { code: error.code, message: error.message, nextSteps: error.nextSteps };
  await enter({ step: "failed", state: "failed", headline: error.message, failure });
  return true;
}

type Work = (options: Options, run: Run) => Promise<Outcome>;

function workOf({ kind }: OpRow): Work {
  if (kind === "cell.salvage") return salvage;
  return kind === "cell.wipe" ? wipe : apply;
}

const salvageInput = z.object({ failover: z.string() });
const applyInput = z.object({
  salvage: z.string(),
  tenant: z.string().optional(),
  force: z.boolean(),
});

const salvage: Work = async (options, { row, signal }) => {
  const { failover } = salvageInput.parse(row.input);
  const rows = await readSalvaged(options, { id: row.id, failover }, signal);
  return {
    headline:
      rows === 0
        ? `${row.object} holds nothing that its tenants' homes lack`
        : `${rows} rows of ${row.object} never arrived elsewhere`,
  };
};

const apply: Work = async (options, { row, signal }) => {
  const { salvage: id, tenant, force } = applyInput.parse(row.input);
  const { applied, left } = await applySalvaged(options, id, { tenant, force }, signal);
  const rest =
    left === 0 ? "" : `; ${left} are left: cellctl cell salvage ${row.object} show says why`;
  return { headline: `${applied} rows are where their tenants are${rest}` };
};

/** Over when the cell is seen to serve: whoever waits for it sends its tenants home next. */
const wipe: Work = async (options, { row, term, signal, step }) => {
  const id = row.object;
  if (row.step !== "opening") {
    const about = { op: row.id, cell: id, term, isDestroyed: row.step === "creating" };
    const destroyed = () => step("creating", `${id} is destroyed; an empty one is made`);
    const made = await destroyAndCreate(options, about, destroyed, signal);
    if (made === undefined) throw new CellError("STATE_CONFLICT", "Another one leads.");
    await step("opening", `${id} is empty; it starts`, (tx) => letBack(tx, id));
  }
  const isBack = await servesWithin(options, id, signal);
  return {
    headline: isBack
      ? `${id} is back, empty, and serves`
      : `${id} is back, empty, and is not healthy yet: cellctl cell get ${id}`,
  };
};
