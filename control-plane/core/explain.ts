/**
 * Why a tenant is where it is, and where it would go: the deciders of placement, told cell by cell.
 */
import type { Explanation } from "../../contract/explanation.ts";
import { type Candidate, type FilterReason, firstNo } from "./filters.ts";
import type { CellView, PlacementView } from "./fleet.ts";
import { placeTenant, type Scored } from "./place.ts";

export type ExplainInput = {
  readonly tenant: string;
  readonly keyspace: string;
  /** Null for a tenant that does not exist: what would happen. */
  readonly current: PlacementView | null;
  /** Of a keyspace of ranges or slots: the container decides, not the score. */
  readonly container: boolean;
  readonly wanted: Candidate;
  readonly cells: readonly CellView[];
};

export function explainPlacement(input: ExplainInput): Explanation {
  // The tenant's own weight is in its cell's usage already; it must not count against it twice.
  const cells =
    input.current === null ? input.cells : without(input.cells, input.current, input.wanted);
  const result = placeTenant(cells, input.wanted);
  const { current } = input;
  const candidates = result.candidates.map((one) => ({ ...one, deciders: [...one.deciders] }));
  return {
    tenant: input.tenant,
    keyspace: input.keyspace,
    current:
      current === null
        ? null
        : {
            key: current.key,
            cell: current.cell,
            epoch: current.epoch,
            state: current.state,
            revision: current.revision,
          },
    decision: current !== null ? "stay" : result.kind,
    text: current === null ? result.text : stayText(input, current, candidates),
    candidates,
    would_change_if: candidates.flatMap(wouldChangeIf),
  };
}

function without(
  cells: readonly CellView[],
  current: PlacementView,
  wanted: Candidate,
): readonly CellView[] {
  return cells.map((cell) =>
    cell.id === current.cell
      ? {
          ...cell,
          usage: {
            tenants: Math.max(0, cell.usage.tenants - 1),
            bytes: Math.max(0, cell.usage.bytes - wanted.bytes),
            rps: Math.max(0, cell.usage.rps - wanted.rps),
          },
        }
      : cell,
  );
}

function stayText(
  input: ExplainInput,
  current: PlacementView,
  candidates: readonly Scored[],
): string {
  if (input.container) {
    return `${input.tenant} is served by ${current.cell}, which owns ${current.key}: the keyspace ${input.keyspace} places containers, not tenants.`;
  }
  const best = candidates[0];
  const here = candidates.find(({ cell }) => cell === current.cell);
  const obstacle = here === undefined ? undefined : firstNo(here.deciders);
  const base = `${input.tenant} stays in ${current.cell}: a placement changes only by a move.`;
  if (obstacle !== undefined) return `${base} A new tenant would not go there: ${obstacle.text}.`;
  return best === undefined || best.cell === current.cell
    ? `${base} A new tenant would go there too.`
    : `${base} A new tenant would go to ${best.cell}.`;
}

const remedies: Partial<Record<FilterReason, (cell: string) => string>> = {
  state: (cell) => `${cell} were active (cellctl cell uncordon ${cell})`,
  health: (cell) => `${cell} were healthy`,
  dedicated: (cell) => `the tenant were created with --cell ${cell}`,
  "capacity-tenants": (cell) => `${cell} had room for one more tenant`,
  "capacity-bytes": (cell) => `${cell} had room for its bytes`,
  "capacity-rps": (cell) => `${cell} had room for its requests`,
  "tenant-share": (cell) => `${cell} allowed a larger share for one tenant`,
};

/** Only a cell with a single obstacle is one step away. */
function wouldChangeIf(candidate: Scored): string[] {
  const against = candidate.deciders.filter(({ decision }) => decision === "no");
  const [only] = against;
  const remedy = only === undefined || against.length > 1 ? undefined : remedies[only.reason];
  return remedy === undefined ? [] : [remedy(candidate.cell)];
}
