/** The key sets that the tenant sources of the table speak of: opened and closed as the table changes. */
import { hash } from "node:crypto";
import { join } from "node:path";
import type { TenantSource } from "../../contract/tenant-source.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields, type Log } from "../../runtime/log.ts";
import type { Random } from "../../runtime/random.ts";
import type { RouterEvents } from "../observe/events.ts";
import type { TrustMetrics } from "../observe/trust-metrics.ts";
import { KeySet, type KeySetEvent, type KeySetLimits } from "./jwt-key-set.ts";

export type KeySets = {
  readonly get: (jwks: string) => KeySet | undefined;
  /** After each change of the table. */
  readonly follow: (sources: readonly TenantSource[]) => void;
  /** Of the set that was read longest ago; 0 while all are fresh or there is none. */
  readonly ageMs: () => number;
  readonly close: () => Promise<void>;
};

export function createKeySets(options: {
  readonly limits: KeySetLimits;
  /** Where the last good keys are kept; undefined in static mode. */
  readonly stateDir: string | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<RouterEvents>;
  readonly metrics: Pick<TrustMetrics, "jwksReads">;
}): KeySets {
  const { limits, stateDir, clock, random } = options;
  const open = new Map<string, { readonly set: KeySet; readonly sinceMs: number }>();
  const closing = new Set<Promise<void>>();
  let followed: readonly TenantSource[] | undefined;

  function add(location: string): void {
    const name = `jwks-${hash("sha256", location, "hex").slice(0, 24)}.json`;
    const set = new KeySet({
      ...{ ...limits, location, clock, random },
      copyFile: stateDir === undefined ? undefined : join(stateDir, name),
      onEvent: (event) => tell(options, nameOf(location), event),
    });
    open.set(location, { set, sinceMs: clock.monotonicMs() });
    set.open();
  }

  function remove(location: string): void {
    const closed = open.get(location)?.set.close() ?? Promise.resolve();
    open.delete(location);
    closing.add(closed);
    void closed.finally(() => closing.delete(closed));
  }

  return {
    get: (jwks) => open.get(jwks)?.set,
    follow: (sources) => {
      if (sources === followed) return;
      followed = sources;
      const wanted = new Set(sources.flatMap((one) => ("jwt" in one ? [one.jwt.jwks] : [])));
      for (const location of [...open.keys()]) if (!wanted.has(location)) remove(location);
      for (const location of wanted) if (!open.has(location)) add(location);
    },
    ageMs: () =>
      Math.max(
        0,
        ...[...open.values()].map(({ set, sinceMs }) => set.ageMs ?? clock.monotonicMs() - sinceMs),
      ),
    close: async () => {
      for (const location of [...open.keys()]) remove(location);
      await Promise.all(closing);
    },
  };
}

/** Without a query, in which some issuers want a secret. */
function nameOf(location: string): string {
  if (location.startsWith("file:")) return location;
  const { origin, pathname } = new URL(location);
  return `${origin}${pathname}`;
}

function tell(
  {
    log,
    metrics,
  }: { readonly log: Log<RouterEvents>; readonly metrics: Pick<TrustMetrics, "jwksReads"> },
  jwks: string,
  event: KeySetEvent,
): void {
  switch (event.kind) {
    case "read":
      metrics.jwksReads.inc({ result: "ok" });
      if (event.changed) log.event("jwks.changed", { jwks, keys: event.keys, from: "issuer" });
      return;
    case "restored":
      log.event("jwks.changed", { jwks, keys: event.keys, from: "disk" });
      return;
    case "failed":
      metrics.jwksReads.inc({ result: "failed" });
      // Once per outage; the counter has the rest.
      if (event.first) log.event("jwks.failed", { jwks, ...errorFields(event.error) }, "warn");
      return;
    case "not-written":
      log.event("jwks.not-written", { jwks, ...errorFields(event.error) }, "warn");
  }
}
