/**
 * What the safety rules look at, read in one snapshot, and what operators set of it. In a transaction that
 * holds the fleet's lock it is what will be true when that transaction commits.
 */
import { inArray, ne, sql } from "drizzle-orm";
import {
  type GatingSwitch,
  type Lever,
  type SafetyLimits,
  safetyLimitsSchema,
} from "../../contract/safety-api.ts";
import { refusalOf } from "../core/rules/refusal.ts";
import {
  judgeOperation,
  type OpenOperation,
  type Operation,
  type RulesView,
  weigh,
} from "../core/rules/rules.ts";
import { databaseNowMs, type Reader, type Tx } from "./database.ts";
import { readCells } from "./fleet-store.ts";
import { op } from "./schema.ts";
import { safety, safetySwitch } from "./schema-safety.ts";
import { standby } from "./schema-standby.ts";
import { readBurnt } from "./slo.ts";

export async function readRulesView(reader: Reader): Promise<RulesView> {
  const { lever, limits } = await readSafety(reader);
  return {
    ...{ lever, limits },
    nowMs: await databaseNowMs(reader),
    switches: await readSwitches(reader),
    cells: await readCells(reader),
    pairs: await readPairs(reader),
    open: await readOpen(reader),
    tenants: await countTenants(reader),
    failedOverAtMs: await lastFailoverMs(reader),
    burnt: await readBurnt(reader),
  };
}

/**
 * Asked again when the operation takes effect: the fleet may have changed since it was planned (promise 9).
 * `override`: what its op was recorded with. Throws SAFETY_RULE, LEVER_ENGAGED, BUDGET_BURNT.
 */
export async function requireStillSafe(
  reader: Reader,
  operation: Operation,
  override: readonly string[],
): Promise<void> {
  const verdicts = judgeOperation(await readRulesView(reader), operation);
  const [first] = weigh(verdicts, override).blocking;
  if (first !== undefined) throw refusalOf(first, operation, verdicts);
}

/** The rules that an operation was recorded as going past. */
export const overridesOf = (input: Readonly<Record<string, unknown>>): readonly string[] => {
  const { override } = input;
  return Array.isArray(override) ? override.filter((one) => typeof one === "string") : [];
};

export async function readSafety(
  reader: Reader,
): Promise<{ readonly lever: Lever; readonly limits: SafetyLimits }> {
  const [row] = await reader.select().from(safety);
  return {
    lever: {
      id: "fleet",
      engaged: row?.leverEngaged ?? false,
      by: row?.leverBy ?? "",
      reason: row?.leverReason ?? "",
      since: row?.leverSince?.toISOString() ?? null,
    },
    limits: safetyLimitsSchema.parse(row?.limits ?? {}),
  };
}

export async function readSwitches(reader: Reader): Promise<GatingSwitch[]> {
  const rows = await reader.select().from(safetySwitch).orderBy(safetySwitch.id);
  return rows.map((row) => ({ ...row, since: row.since.toISOString() }));
}

const gone = ["gone", "dropping", "leaving"] as const;
const readPairs = (reader: Reader) =>
  reader
    .select({ origin: standby.origin, host: standby.host })
    .from(standby)
    .where(
      sql`${standby.state} not in (${sql.join(
        gone.map((one) => sql`${one}`),
        sql`, `,
      )})`,
    );

/** What puts a whole cell to work; moves are counted by the tenants that they have in motion. */
async function readOpen(reader: Reader): Promise<OpenOperation[]> {
  const rows = await reader
    .select({ id: op.id, kind: op.kind, object: op.object })
    .from(op)
    .where(inArray(op.state, ["pending", "running"]));
  return rows
    .filter(({ kind }) => kind.startsWith("cell.") && !marks.has(kind))
    .map(({ id, kind, object }) => ({ id, kind, cells: [object] }));
}

/** Intent alone: nothing happens in the cell. */
const marks: ReadonlySet<string> = new Set(["cell.cordon", "cell.uncordon", "cell.stores"]);

async function countTenants(reader: Reader): Promise<RulesView["tenants"]> {
  const { rows } = await reader.execute<{ all: number; moving: number }>(sql`
    select (select coalesce(sum(used_tenants), 0)::float8 from cellfleet_control.cell
             where state <> 'retired') as "all",
           (select count(*)::float8 from cellfleet_control.move_key as k
              join cellfleet_control.tenant as t on t.placement_key = k.key
              join cellfleet_control.op as o on o.id = k.op
             where k.open and o.state in ('pending', 'running')
               and o.step not in ('soaking', 'cleaning', 'diverged')) as moving`);
  const row = rows[0] ?? { all: 0, moving: 0 };
  return { all: row.all, inMotion: row.moving };
}

async function lastFailoverMs(reader: Reader): Promise<number> {
  const { rows } = await reader.execute<{ at: Date | null }>(sql`
    select max(updated_at) as at from cellfleet_control.op
     where kind = 'cell.failover' and state in ('done', 'failed')`);
  const at = rows[0]?.at ?? null;
  return at === null ? 0 : new Date(at).getTime();
}

export async function setLever(
  tx: Tx,
  lever: { readonly engaged: boolean; readonly by: string; readonly reason: string },
): Promise<void> {
  const set = {
    leverEngaged: lever.engaged,
    leverBy: lever.by,
    leverReason: lever.reason,
    leverSince: sql`clock_timestamp()`,
  };
  await tx
    .insert(safety)
    .values({ one: true, ...set })
    .onConflictDoUpdate({ target: safety.one, set });
}

export async function setLimits(tx: Tx, limits: SafetyLimits): Promise<void> {
  await tx
    .insert(safety)
    .values({ one: true, limits })
    .onConflictDoUpdate({ target: safety.one, set: { limits } });
}

export async function setSwitch(
  tx: Tx,
  one: Pick<GatingSwitch, "id" | "open" | "by" | "reason"> & {
    /** Undefined: as they were. */
    readonly kinds: readonly string[] | undefined;
  },
): Promise<void> {
  const { id, open, by, reason } = one;
  const set = { open, by, reason, since: sql`clock_timestamp()` };
  await tx
    .insert(safetySwitch)
    .values({ id, ...set, kinds: [...(one.kinds ?? [])] })
    .onConflictDoUpdate({
      target: safetySwitch.id,
      set: one.kinds === undefined ? set : { ...set, kinds: [...one.kinds] },
    });
}

/** False: there is none. */
export async function removeSwitch(tx: Tx, id: string): Promise<boolean> {
  const { rowCount } = await tx
    .delete(safetySwitch)
    .where(sql`${safetySwitch.id} = ${id} and ${ne(safetySwitch.id, "")}`);
  return rowCount === 1;
}
