/**
 * The rules that protect the fleet: each looks at one snapshot and says pass or block, with numbers. Asked when
 * an operation is planned, and again, over a new snapshot, when it takes effect (promise 9). Pure.
 *
 * What must always be true: a repair is never stopped by the lever, a switch, a budget or a wait: these keep
 * people from making a bad day worse, not from ending it.
 */
import type {
  GatingSwitch,
  Lever,
  RuleVerdict,
  SafetyLimits,
  SafetyRule,
} from "../../../contract/safety-api.ts";
import { areOf, counted } from "../counted.ts";
import { type CellView, wholeCells } from "../fleet.ts";
import {
  isNamed,
  type OperationKind,
  occupiesCell,
  operations,
  spendsBudget,
  takesAway,
} from "./operations.ts";

export type OpenOperation = {
  readonly id: string;
  readonly kind: string;
  /** Cells that it occupies. */
  readonly cells: readonly string[];
};

export type RulesView = {
  readonly nowMs: number;
  readonly lever: Lever;
  readonly switches: readonly GatingSwitch[];
  readonly limits: SafetyLimits;
  readonly cells: readonly CellView[];
  /** Who keeps whose standby. */
  readonly pairs: ReadonlyArray<{ readonly origin: string; readonly host: string }>;
  readonly open: readonly OpenOperation[];
  readonly tenants: { readonly all: number; readonly inMotion: number };
  /** When the last failover ended, or 0. */
  readonly failedOverAtMs: number;
  /** In words, such as `cell-02 / default: 132 % of the budget of 30 d is used`. */
  readonly burnt: readonly string[];
};

export type Operation = {
  readonly kind: OperationKind;
  /** What it is done to; undefined: the fleet. */
  readonly cell?: string;
  /** How many tenants it would put in motion. */
  readonly tenants?: number;
  /** Of a rebalance: each of its moves ends what may not stay so. It is not made for balance, so it need not wait. */
  readonly mends?: boolean;
  /** Its own id, once it is recorded: it does not stand in its own way. */
  readonly id?: string;
};

type Rule = {
  readonly rule: SafetyRule;
  readonly code: RuleVerdict["code"];
  readonly overridable: boolean;
  /** Undefined: it does not apply. */
  readonly look: (view: RulesView, operation: Operation) => Look | undefined;
};
type Look = { readonly ok: boolean; readonly text: string };

const isRepair = ({ kind }: Operation): boolean => operations[kind] === "repair";
const isOptional = ({ kind }: Operation): boolean => operations[kind] === "optional";

const lever: Rule = {
  rule: "lever",
  code: "LEVER_ENGAGED",
  overridable: true,
  look: ({ lever: one }, operation) =>
    isOptional(operation)
      ? {
          ok: !one.engaged,
          text: one.engaged
            ? `the lever is engaged since ${one.since} by ${one.by}: ${one.reason}`
            : "the lever is not engaged",
        }
      : undefined,
};

const gatingSwitch: Rule = {
  rule: "switch",
  code: "SAFETY_RULE",
  overridable: true,
  look: ({ switches }, operation) => {
    if (isRepair(operation)) return undefined;
    const shut = switches.filter(({ open }) => !open);
    const closed = shut.filter(({ kinds }) => isNamed(kinds, operation.kind));
    const others = `no closed switch names it; ${shut.length} ${areOf(shut.length)} closed for others`;
    return closed.length === 0
      ? { ok: true, text: shut.length === 0 ? "no switch is closed" : others }
      : {
          ok: false,
          text: closed
            .map(({ id, by, reason }) => `${id} is closed by ${by}: ${reason}`)
            .join("; "),
        };
  },
};

/** In pass-through a cell is served as it was before it was adopted: nobody depends on our part of it. */
const isServing = (cell: CellView): boolean =>
  cell.stage.now !== "pass-through" &&
  cell.health === "healthy" &&
  cell.state !== "retired" &&
  cell.state !== "provisioning";

const healthyCells: Rule = {
  rule: "healthy-cells",
  code: "SAFETY_RULE",
  overridable: false,
  look: (view, operation) => {
    const cell = cellOf(view, operation);
    if (cell === undefined || !takesAway.has(operation.kind) || !isServing(cell)) return undefined;
    // Destroying a cell that was emptied and cordoned takes nobody's cell away.
    if (operation.kind === "cell.destroy" && cell.state !== "active") return undefined;
    const others = othersOf(view, operation).filter(isServing).length;
    const { healthyCellsMin } = view.limits;
    return {
      ok: others >= healthyCellsMin,
      text: `${counted(others, "other cell")} ${areOf(others)} healthy, ${healthyCellsMin} must stay`,
    };
  },
};

const openCells: Rule = {
  rule: "open-cells",
  code: "SAFETY_RULE",
  overridable: false,
  look: (view, operation) => {
    if (operation.kind !== "cell.cordon" && operation.kind !== "cell.drain") return undefined;
    const others = othersOf(view, operation).filter(({ state }) => state === "active").length;
    const { openCellsMin } = view.limits;
    return {
      ok: others >= openCellsMin,
      text: `${counted(others, "other cell")} ${areOf(others)} open for placement, ${openCellsMin} must stay`,
    };
  },
};

const resources = ["tenants", "bytes", "rps"] as const;

/** All that the cell carries would have to fit into the others. */
const headroom: Rule = {
  rule: "headroom",
  code: "SAFETY_RULE",
  overridable: true,
  look: (view, operation) => {
    const cell = cellOf(view, operation);
    if (cell === undefined || view.limits.headroom === "off") return undefined;
    if (!takesAway.has(operation.kind) && operation.kind !== "cell.drain") return undefined;
    const takers = othersOf(view, operation).filter(
      (one) => one.state === "active" && one.health === "healthy" && !one.dedicated,
    );
    const short = resources.filter((name) => {
      const free = takers.reduce((sum, one) => sum + one.capacity[name] - one.usage[name], 0);
      return free < cell.usage[name];
    });
    if (short.length === 0) {
      return { ok: true, text: `the other cells have room for all of ${cell.id}` };
    }
    const text = `the other cells lack room for the ${short.join(" and ")} of ${cell.id}`;
    return { ok: view.limits.headroom === "warn", text };
  },
};

const oneOperation: Rule = {
  rule: "one-operation",
  code: "SAFETY_RULE",
  overridable: true,
  look: (view, operation) => {
    const { cell, kind, id } = operation;
    if (cell === undefined || !occupiesCell.has(kind)) return undefined;
    const near = new Set([
      cell,
      ...view.pairs.filter(({ origin }) => origin === cell).map(({ host }) => host),
      ...view.pairs.filter(({ host }) => host === cell).map(({ origin }) => origin),
    ]);
    // Of two that were recorded at the same time the first goes on.
    const other = view.open.find(
      (one) =>
        one.id !== id && (id === undefined || one.id < id) && one.cells.some((at) => near.has(at)),
    );
    return other === undefined
      ? { ok: true, text: `nothing else happens to ${cell} and its standby partners` }
      : {
          ok: false,
          text: `${other.kind} of ${other.cells.join(", ")} is running (${other.id}), on the cell or on one that shares standbys with it`,
        };
  },
};

const motion: Rule = {
  rule: "motion",
  code: "SAFETY_RULE",
  overridable: true,
  look: ({ tenants, limits }, operation) => {
    if (operation.tenants === undefined || isRepair(operation)) return undefined;
    const most = Math.max(limits.motionFloor, Math.floor(tenants.all * limits.motionShareMax));
    const then = tenants.inMotion + operation.tenants;
    return {
      ok: then <= most,
      text: `${then} of ${tenants.all} tenants would be in motion, ${most} may be`,
    };
  },
};

/** Only what changes balance on its own account: a person who drains or moves knows why. */
const waits: ReadonlySet<OperationKind> = new Set([
  "rebalance.apply",
  "drill.run",
  "failover.planned",
]);
const wait: Rule = {
  rule: "wait",
  code: "SAFETY_RULE",
  overridable: true,
  look: ({ nowMs, limits, failedOverAtMs }, { kind, mends = false }) => {
    if (!waits.has(kind) || mends || failedOverAtMs === 0) return undefined;
    const leftMs = failedOverAtMs + limits.waitAfterFailoverMs - nowMs;
    return {
      ok: leftMs <= 0,
      text:
        leftMs <= 0
          ? "long enough since the last failover"
          : `the last failover ended a short while ago: wait ${Math.ceil(leftMs / 1000)} s more`,
    };
  },
};

const budget: Rule = {
  rule: "budget",
  code: "BUDGET_BURNT",
  overridable: true,
  look: ({ burnt }, operation) =>
    spendsBudget.has(operation.kind) && operation.mends !== true
      ? {
          ok: burnt.length === 0,
          text: burnt.length === 0 ? "no error budget is burnt" : burnt.slice(0, 3).join("; "),
        }
      : undefined,
};

const rules: readonly Rule[] = [
  lever,
  gatingSwitch,
  healthyCells,
  openCells,
  headroom,
  oneOperation,
  motion,
  wait,
  budget,
];

/** Every rule that applies, in order. */
export const judgeOperation = (view: RulesView, operation: Operation): readonly RuleVerdict[] =>
  rules.flatMap(({ rule, code, overridable, look }) => {
    const found = look(view, operation);
    if (found === undefined) return [];
    return [{ rule, code, overridable, verdict: found.ok ? "pass" : "block", text: found.text }];
  });

export type Safe = {
  /** What stands against it. */
  readonly blocking: readonly RuleVerdict[];
  /** Rules that a person went past, by name. */
  readonly overridden: readonly RuleVerdict[];
};

/** `override`: rules to go past; of those that may not be, none is. */
export function weigh(verdicts: readonly RuleVerdict[], override: readonly string[]): Safe {
  const blocked = verdicts.filter(({ verdict }) => verdict === "block");
  const isPast = ({ rule, overridable }: RuleVerdict) => overridable && override.includes(rule);
  return {
    blocking: blocked.filter((one) => !isPast(one)),
    overridden: blocked.filter(isPast),
  };
}

const cellOf = (view: RulesView, { cell }: Operation): CellView | undefined =>
  wholeCells(view.cells).find(({ id }) => id === cell);

/** Not the cell itself, and not those that operations before this one take away. */
function othersOf(view: RulesView, { cell, id }: Operation): readonly CellView[] {
  const leaving = new Set(
    view.open
      .filter((one) => takesAwayKinds.has(one.kind) && (id === undefined || one.id < id))
      .flatMap(({ cells }) => cells),
  );
  return wholeCells(view.cells).filter((one) => one.id !== cell && !leaving.has(one.id));
}

const takesAwayKinds: ReadonlySet<string> = new Set<string>(takesAway);
