/** One tenant's share, over an invented clock. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type KeyspaceName, parseKeyspaceName, parseTenantId } from "../../contract/ids.ts";
import type { TrafficPolicy } from "../../contract/traffic-policy.ts";
import { must } from "../../runtime/assert.ts";
import { TenantLimits, type TenantShare } from "./tenant-limits.ts";

const keyspace = (name: string): KeyspaceName => must(parseKeyspaceName(name), name);
const tenant = (name: string) => must(parseTenantId(name), name);
const home = keyspace("default");

function limitsOf(tenantLimits: TrafficPolicy["tenantLimits"], ceiling = 0) {
  const clock = { nowMs: 0 };
  const limits = new TenantLimits(() => clock.nowMs, ceiling);
  limits.follow({ tenantLimits });
  const enter = (name: string, space = home): TenantShare | string => {
    const entered = limits.enter(space, tenant(name));
    return "reason" in entered ? `${entered.reason} ${Math.ceil(entered.waitMs ?? 0)}` : entered;
  };
  const letIn = (name: string): TenantShare => {
    const entered = enter(name);
    if (typeof entered === "string") throw new Error(entered);
    return entered;
  };
  return { clock, limits, enter, letIn };
}

test("so many under way, and as many as leave may come", () => {
  const { enter, letIn, limits } = limitsOf({ default: { inFlightMax: 2 } });
  const first = letIn("acme");
  letIn("acme");
  expect(enter("acme")).toBe("in-flight 0");
  expect(typeof enter("globex")).toBe("object");
  limits.leave(first);
  expect(typeof enter("acme")).toBe("object");
});

test("the router's ceiling and the policy both hold, tunnels count for the policy alone", () => {
  const { enter, letIn, limits } = limitsOf({ tenants: { acme: { inFlightMax: 3 } } }, 2);
  const tunnel = limits.enterTunnel(home, tenant("acme"));
  expect("reason" in tunnel).toBe(false);
  letIn("acme");
  letIn("acme");
  expect(enter("acme")).toBe("in-flight 0");
  expect(limits.enterTunnel(home, tenant("acme"))).toMatchObject({ reason: "in-flight", limit: 3 });
  letIn("globex");
  letIn("globex");
  expect(enter("globex")).toBe("in-flight 0");
  if (!("reason" in tunnel)) limits.leaveTunnel(tunnel);
  expect("reason" in limits.enterTunnel(home, tenant("acme"))).toBe(false);
});

test("a burst at once, then so many a second; the wait is what the bucket needs", () => {
  const { clock, enter } = limitsOf({ default: { perSecond: 2, burst: 3 } });
  expect([1, 2, 3].map(() => typeof enter("acme"))).toEqual(["object", "object", "object"]);
  expect(enter("acme")).toBe("rate 500");
  clock.nowMs = 400;
  expect(enter("acme")).toBe("rate 100");
  clock.nowMs = 500;
  expect(typeof enter("acme")).toBe("object");
  expect(enter("acme")).toBe("rate 500");
  expect(typeof enter("globex")).toBe("object");
});

test("without a burst it is a second's worth, at least one", () => {
  const { enter } = limitsOf({ default: { perSecond: 0.5 } });
  expect(typeof enter("acme")).toBe("object");
  expect(enter("acme")).toBe("rate 2000");
});

test("of many workers each gives its part, and who is refused is told the number of the whole", () => {
  const limits = new TenantLimits(() => 0, 9, 4);
  limits.follow({
    tenantLimits: {
      default: { perSecond: 2, burst: 4 },
      tenants: { acme: { inFlightMax: 5 }, free: {} },
    },
  });
  const refusals = (name: string, count: number) =>
    Array.from({ length: count }, () => limits.enter(home, tenant(name))).filter(
      (one) => "reason" in one,
    );
  expect(limits.workers).toBe(4);
  expect(refusals("globex", 2)).toEqual([{ reason: "rate", limit: 2, waitMs: 2000 }]);
  expect(refusals("acme", 3)).toEqual([{ reason: "in-flight", limit: 5, waitMs: undefined }]);
  expect(refusals("free", 4)).toEqual([{ reason: "in-flight", limit: 9, waitMs: undefined }]);
});

test("who is named has its own rule alone, in its own keyspace", () => {
  const { enter } = limitsOf({
    default: { inFlightMax: 1 },
    tenants: { acme: { perSecond: 100 }, "eu/acme": { inFlightMax: 0 } },
  });
  expect([enter("acme"), enter("acme")].map((one) => typeof one)).toEqual(["object", "object"]);
  expect(enter("acme", keyspace("eu"))).toBe("in-flight 0");
});

test("a changed policy holds for the next request, also of who is under way", () => {
  const { enter, letIn, limits } = limitsOf(undefined);
  letIn("acme");
  letIn("acme");
  limits.follow({ tenantLimits: { default: { inFlightMax: 2 } } });
  expect(enter("acme")).toBe("in-flight 0");
  limits.follow({});
  expect(typeof enter("acme")).toBe("object");
});

test("memory holds only who is busy, who waits for its bucket, and a bounded number of others", () => {
  const { clock, limits, letIn } = limitsOf({ default: { perSecond: 1 } });
  for (let nth = 0; nth < 50_000; nth += 1) {
    clock.nowMs += 10;
    limits.leave(letIn(`t${nth}`));
  }
  // A bucket is full again after a second, so 100 are not; the rest is what a sweep has left for later.
  expect(limits.size).toBeLessThanOrEqual(20_100);
});

test("whatever comes and goes, nobody has more than the limit, and in the end nobody has anything", () => {
  const step = fc.record({ who: fc.constantFrom("a", "b"), leaves: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const { limits, enter } = limitsOf({ default: { inFlightMax: 3 } });
      const held: Record<string, TenantShare[]> = { a: [], b: [] };
      for (const { who, leaves } of steps) {
        const mine = must(held[who], who);
        if (leaves) {
          const one = mine.pop();
          if (one !== undefined) limits.leave(one);
          continue;
        }
        const entered = enter(who);
        expect(typeof entered === "string").toBe(mine.length === 3);
        if (typeof entered !== "string") mine.push(entered);
      }
      for (const one of Object.values(held).flat()) limits.leave(one);
      expect(
        [enter("a"), enter("b")].map((one) => typeof one === "object" && one.inFlight),
      ).toEqual([1, 1]);
    }),
  );
});
