/** Which keys are stopped because the promise of the partner that keeps them is over. Pure. */
import { bucketOf, type PlacementKey, parsePlacementKey } from "../../../contract/placement-key.ts";
import type { StandbyFacts } from "../../store/standby-facts.ts";

/** Undefined: none is, which is so almost always. A key that nobody can place is. */
export function stoppedKeys(
  each: readonly StandbyFacts[],
): ((key: PlacementKey) => boolean) | undefined {
  const some = each.filter(({ stopped }) => stopped.length > 0);
  if (some.length === 0) return undefined;
  return (key) => some.some((one) => isStopped(one, key));
}

function isStopped({ stopped, keyspaces }: StandbyFacts, key: PlacementKey): boolean {
  const parts = parsePlacementKey(key);
  const keyspace = keyspaces.find(({ name }) => name === parts?.keyspace);
  if (parts === undefined || keyspace === undefined) return true;
  const { strategy, slotCount } = keyspace;
  const bucket = bucketOf(parts, { strategy, slotCount: slotCount ?? undefined });
  return stopped.some(({ lo, hi }) => lo <= bucket && bucket <= hi);
}
