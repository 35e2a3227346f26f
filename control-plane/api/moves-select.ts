/**
 * What a request to move things means: which keys, in groups that move together, and what stands
 * against each. Read only; asked once to look at the cells and once more under the fleet's lock.
 */
import { CellError } from "../../contract/errors.ts";
import type { MoveCheck, PlanMoves } from "../../contract/move-api.ts";
import { must } from "../../runtime/assert.ts";
import type { CellView } from "../core/fleet.ts";
import { checkOf } from "../core/move/move-plan.ts";
import { addRoom, type MovingLoad, noRoom, obstacleAt, roomOf } from "../core/move/move-target.ts";
import { adoptionGoesOn, checkAdoption } from "../core/safety.ts";
import type { Tx } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { inMotion, otherOpOn } from "../store/moves/ask.ts";
import { loadsUnder } from "../store/moves/candidates.ts";
import { movingText, requireAtRest } from "../store/moves/motion.ts";
import { openOpOn } from "../store/ops.ts";
import type { PlacementRow } from "../store/placements.ts";
import { requireCell } from "./cell-lookup.ts";
import { chosenPlacements } from "./moves-chosen.ts";

/** A check of the control plane's own, and the refusal that it becomes when the move is begun. */
export type Finding = { readonly check: MoveCheck; readonly refusal?: CellError };

export type MoveGroup = {
  readonly keyspace: string;
  readonly source: CellView;
  readonly target: CellView;
  readonly rows: readonly PlacementRow[];
  readonly loads: readonly MovingLoad[];
  readonly findings: readonly Finding[];
};

export type Skipped = { readonly object: string; readonly reason: string; readonly text: string };
export type Selected = {
  readonly groups: readonly MoveGroup[];
  readonly skipped: readonly Skipped[];
};

export type Selection = Omit<PlanMoves, "options">;

/** Moves that one request may begin. */
const groupsMax = 1000;

/** Throws CELL_UNKNOWN, TENANT_UNKNOWN, NOT_FOUND, KEY_IN_MOTION, STATE_CONFLICT, VALIDATION_FAILED. */
export async function selectMoves(tx: Tx, asked: Selection): Promise<Selected> {
  const target = await requireCell(tx, asked.to);
  if (asked.from !== undefined) await requireCell(tx, asked.from);
  const chosen = await chosenPlacements(tx, asked);
  const { moving: wanted, skipped: elsewhere } = sortOut(chosen, asked);
  const { moving, skipped: busy } = await leaveOut(tx, wanted, asked);
  const skipped = [...elsewhere, ...busy];
  await requireMovable(tx, moving);
  const cells = await readCells(tx);
  const loads = await readLoads(tx, moving);
  const findCell = (id: string) =>
    must(
      cells.find((cell) => cell.id === id),
      `cell ${id}`,
    );
  const known = new Map<string, readonly Finding[]>();
  const lookAt = async (cell: CellView, side: Side): Promise<readonly Finding[]> => {
    const findings = known.get(cell.id) ?? (await findingsAt(tx, cell, side));
    known.set(cell.id, findings);
    return findings;
  };
  let taken = noRoom;
  const groups: MoveGroup[] = [];
  for (const rows of groupsOf(moving, asked.together)) {
    const first = must(rows[0], "key of a group");
    const own = rows.flatMap((row) => loads.get(row.key) ?? []);
    const source = findCell(first.cell);
    const findings = [
      ...(await lookAt(source, "source")),
      ...(await lookAt(target, "target")),
      fitFinding(target, own, taken),
    ];
    taken = addRoom(taken, roomOf(own));
    groups.push({ keyspace: first.keyspace, source, target, rows, loads: own, findings });
  }
  if (groups.length > groupsMax) {
    throw new CellError(
      "VALIDATION_FAILED",
      `${groups.length} moves in one request; ${groupsMax} is the most.`,
      { nextSteps: ["narrow the selector, or let keys move together (--together 100)"] },
    );
  }
  return { groups, skipped };
}

function sortOut(rows: readonly PlacementRow[], { to, from }: Selection) {
  const moving: PlacementRow[] = [];
  const skipped: Skipped[] = [];
  for (const row of rows) {
    if (row.cell === to) {
      const text = `is in ${to} already`;
      skipped.push({ object: row.key, reason: "there-already", text });
    } else if (from !== undefined && row.cell !== from) {
      const text = `is in ${row.cell}, not in ${from}`;
      skipped.push({ object: row.key, reason: "not-from-there", text });
    } else moving.push(row);
  }
  return { moving, skipped };
}

/** What a selector found and a move has already is left out; what was named is not, so it is refused. */
async function leaveOut(tx: Tx, rows: readonly PlacementRow[], asked: Selection) {
  const { tenants = [], keys = [] } = asked;
  const found = rows.filter(
    ({ key, kind, value }) =>
      !keys.some((one) => one === key) &&
      !(kind === "tenant" && tenants.some((name) => name === value)),
  );
  const busy = new Map(
    (
      await inMotion(
        tx,
        found.map(({ key }) => key),
      )
    ).map((one) => [one.key, one]),
  );
  const skipped = [...busy.values()].map(
    (one): Skipped => ({
      object: one.key,
      reason: "in-motion",
      text: movingText(one),
    }),
  );
  return { moving: rows.filter(({ key }) => !busy.has(key)), skipped };
}

/** Of one keyspace and one source, in the order of their keys. */
function groupsOf(rows: readonly PlacementRow[], together: number): PlacementRow[][] {
  const sorted = rows.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  const parts = Map.groupBy(sorted, ({ keyspace, cell }) => `${cell}\n${keyspace}`);
  return [...parts.values()].flatMap((part) =>
    Array.from({ length: Math.ceil(part.length / together) }, (_, index) =>
      part.slice(index * together, (index + 1) * together),
    ),
  );
}

async function requireMovable(tx: Tx, rows: readonly PlacementRow[]): Promise<void> {
  const keys = rows.map(({ key }) => key);
  await requireAtRest(tx, keys);
  const tenants = rows.flatMap(({ kind, value }) => (kind === "tenant" ? [value] : []));
  const open = await otherOpOn(tx, keys, tenants);
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${open.object} is running (${open.id}): ${open.headline}.`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  const resting = rows.find(({ state }) => state !== "active");
  if (resting === undefined) return;
  const { key, kind, value, state } = resting;
  throw new CellError("STATE_CONFLICT", `${key} is ${state}; only what is active is moved.`, {
    details: { key, state },
    nextSteps:
      kind === "tenant" && state === "suspended"
        ? [`cellctl tenant resume ${value}`]
        : kind === "tenant"
          ? [`cellctl tenant get ${value}`]
          : ["cellctl op ls"],
  });
}

async function readLoads(
  tx: Tx,
  rows: readonly PlacementRow[],
): Promise<ReadonlyMap<string, MovingLoad[]>> {
  const found = Map.groupBy(
    await loadsUnder(
      tx,
      rows.map(({ key }) => key),
    ),
    ({ key }) => key,
  );
  const empty = { tenants: 0, bytes: 0, rps: 0, bytesLargest: 0, rpsLargest: 0 };
  return new Map(
    rows.map(({ key, kind, value }) => {
      const name = kind === "tenant" ? value : key;
      const lines = found.get(key)?.map((load) => ({ ...load, name }));
      return [key, lines ?? [{ ...empty, name, tier: "standard", region: null }]];
    }),
  );
}

type Side = "source" | "target";

const refusedBy = (id: string, cell: CellView, refusal: CellError): Finding => ({
  refusal,
  check: {
    ...checkOf(id, cell.id, "refused", refusal.message, refusal.nextSteps[0] ?? ""),
    code: refusal.code,
  },
});

/** A move needs both cells whole, and the fence of both. A target's health is a matter of placement. */
async function findingsAt(tx: Tx, cell: CellView, side: Side): Promise<Finding[]> {
  const findings: Finding[] = [];
  const refuse = (id: string, refusal: CellError) => findings.push(refusedBy(id, cell, refusal));
  if (cell.health !== "healthy" && side === "source") {
    refuse(
      "health",
      new CellError(
        "STATE_CONFLICT",
        `${cell.id} is ${cell.health} (${cell.healthReason}): nothing can move away from it now.`,
        { nextSteps: [`cellctl cell get ${cell.id}`], details: { cell: cell.id } },
      ),
    );
  }
  if (cell.stage.now !== "enforce" || cell.stage.applied !== "enforce") {
    refuse(
      "stage",
      new CellError(
        "SAFETY_RULE",
        `${cell.id} is in stage ${cell.stage.now}: nothing is refused there, so no fence would hold.`,
        {
          nextSteps: [`cellctl cell stage ${cell.id} enforce`],
          details: { rule: "stage-enforce", cell: cell.id },
        },
      ),
    );
  }
  const open = await openOpOn(tx, cell.id, "cell.");
  if (open !== undefined) {
    refuse(
      "operation",
      new CellError("STATE_CONFLICT", `${open.kind} of ${cell.id} is running (${open.id}).`, {
        nextSteps: [`cellctl op watch ${open.id}`],
        details: { op: open.id },
      }),
    );
  }
  if (findings.length === 0 && cell.health === "healthy") {
    findings.push({ check: checkOf("cell", cell.id, "ok", "healthy, and it enforces") });
  }
  return findings;
}

/** May the target take them: as if they were created there by name. */
function fitFinding(target: CellView, loads: readonly MovingLoad[], taken: typeof noRoom): Finding {
  const obstacle = obstacleAt(target, loads, taken);
  if (obstacle === undefined) {
    return { check: checkOf("placement", target.id, "ok", "takes them: room, region, tier") };
  }
  const { load, decider } = obstacle;
  const adoption = decider.reason === "adoption" ? checkAdoption(target) : undefined;
  const text = `${target.id} may not take ${load.name}: ${decider.text}.`;
  const refusal =
    adoption === undefined
      ? new CellError("CAPACITY_EXHAUSTED", text, {
          nextSteps: [mend(target, load, decider.reason), "cellctl cell ls"],
          details: { cell: target.id, reason: decider.reason },
        })
      : adoptionGoesOn(target, adoption);
  return refusedBy("placement", target, refusal);
}

function mend(target: CellView, load: MovingLoad, reason: string): string {
  if (reason === "state" && target.state === "cordoned")
    return `cellctl cell uncordon ${target.id}`;
  if (reason === "state" || reason === "health") return `cellctl cell get ${target.id}`;
  // A container is no tenant that could be explained.
  return load.name.includes("/")
    ? `cellctl cell get ${target.id}`
    : `cellctl explain placement ${load.name}`;
}
