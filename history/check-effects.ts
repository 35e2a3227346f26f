/**
 * Effects once: what a write causes outside of all cells happens once. Two messages about one write are as
 * wrong as one message that took effect twice; where a tenant's outbox is said to be empty, every write
 * that is there must have had its effect.
 */
import type { EntryOf, Violation, ViolationKind } from "./model.ts";

type Effected = {
  readonly tenant: string;
  readonly value: string;
  readonly outcome: "open" | "ok" | "fail" | "info";
  readonly presentCount: number;
};

export type Effects = {
  readonly happened: (entry: EntryOf<"effect">) => void;
  readonly settled: (tenant: string) => void;
  readonly count: () => number;
  readonly faults: (
    writes: ReadonlyMap<string, Effected>,
    isRead: (tenant: string) => boolean,
    isExcused: (value: string) => boolean,
  ) => Violation[];
};

export function createEffects(): Effects {
  /** By value: each effect's id. */
  const ids = new Map<string, string[]>();
  const tenants = new Map<string, string>();
  const owners = new Map<string, string>();
  const done = new Set<string>();
  const collisions: Violation[] = [];
  let count = 0;
  return {
    happened: ({ tenant, id, value }) => {
      count += 1;
      const owner = owners.get(id) ?? value;
      owners.set(id, owner);
      if (owner !== value) {
        const text = `message ${id} was about ${owner} as well`;
        collisions.push({ kind: "id-collision", tenant, value, text });
      }
      ids.set(value, [...(ids.get(value) ?? []), id]);
      tenants.set(value, tenant);
    },
    settled: (tenant) => done.add(tenant),
    count: () => count,
    faults: (writes, isRead, isExcused) => [
      ...collisions,
      ...[...ids].flatMap(([value, seen]) => {
        const tenant = tenants.get(value) ?? "";
        return effectFaults({ tenant, value, ids: seen }, writes.get(value), isRead, isExcused);
      }),
      ...[...writes.values()].flatMap(({ tenant, value, presentCount }) =>
        done.has(tenant) && presentCount > 0 && !ids.has(value)
          ? [
              {
                kind: "effect-missing" as const,
                tenant,
                value,
                text: "is there, but had no effect",
              },
            ]
          : [],
      ),
    ],
  };
}

function effectFaults(
  effect: { readonly tenant: string; readonly value: string; readonly ids: readonly string[] },
  write: Effected | undefined,
  isRead: (tenant: string) => boolean,
  isExcused: (value: string) => boolean,
): Violation[] {
  const { tenant, value, ids } = effect;
  const fault = (kind: ViolationKind, text: string): Violation => ({ kind, tenant, value, text });
  if (write === undefined) return [fault("phantom", "had an effect, but nobody wrote it")];
  if (write.tenant !== tenant) {
    return [fault("foreign", `was written for ${write.tenant}, and its effect names ${tenant}`)];
  }
  const faults: Violation[] = [];
  if (ids.length > 1) {
    const what = new Set(ids).size > 1 ? `messages ${ids.join(", ")}` : `message ${ids[0]}`;
    faults.push(fault("effect-twice", `had its effect ${ids.length} times, by ${what}`));
  }
  if (write.outcome === "fail") {
    faults.push(fault("resurrected", "was refused as certainly not done, yet had an effect"));
  } else if (isRead(tenant) && write.presentCount === 0 && !isExcused(value)) {
    faults.push(fault("lost", "had its effect, and is not there"));
  }
  return faults;
}
