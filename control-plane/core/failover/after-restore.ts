/**
 * What becomes of a failover that was open when the control plane's database was backed up. Since then it may
 * have ended: called off, and the cell serves; finished, and the cell was wiped and is home again; or it stands
 * still where it stood.
 *
 * What must always be true: a cell that a control plane has granted since is not taken from once more; before
 * severing nothing is concluded from what partners were then, for the cell's list of them may have changed; from
 * severing on nobody may have what this control plane would give away, or the failover goes no further. Pure.
 */
import type { FailoverStep } from "../../../contract/failover-api.ts";
import type { FailoverRun } from "./phases.ts";

export type AfterRestore =
  /** It ends; the cell stands as it did before it, and is judged anew. */
  | "undo"
  /** It goes on where it stood. */
  | "resume"
  /** It ends; the cell stays apart, and a person decides about what it still owns. */
  | "leave-apart";

export type RestoredFacts = {
  /** A control plane has granted the cell a lease since the backup. */
  readonly servedSince: boolean;
  /** Cells that recovery went on without. */
  readonly frozen: readonly string[];
  /** Annexes that have reported, by the failover that their databases have recorded last; their hosts. */
  readonly annexes: ReadonlyMap<string, { readonly failover: string | null }>;
  /** Annexes that stand in the cell: they go down with it, and own nothing of it. */
  readonly hosted: ReadonlySet<string>;
};

const untouched: ReadonlySet<FailoverStep> = new Set<FailoverStep>([
  "confirmed",
  "revoking",
  "restoring",
  "evacuating",
]);

export function afterRestore(
  run: Pick<FailoverRun, "id" | "cell" | "step" | "evidence">,
  facts: RestoredFacts,
): AfterRestore {
  if (untouched.has(run.step) || facts.servedSince) return "undo";
  // Whoever is missing may be the heir of a key that this database takes for the cell's.
  const isMissing = facts.frozen.some((id) => id !== run.cell && !facts.hosted.has(id));
  const isElsewhere = Object.entries(run.evidence.annexes)
    .filter(([, { status }]) => status === "stopped" || status === "severed")
    .some(([annex]) => facts.annexes.get(annex)?.failover !== run.id);
  return isMissing || isElsewhere ? "leave-apart" : "resume";
}
