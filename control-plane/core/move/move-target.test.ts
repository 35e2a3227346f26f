import fc from "fast-check";
import { expect, test } from "vitest";
import { aCell } from "../fleet.fixture.ts";
import { type MovingLoad, noRoom, obstacleAt, roomOf } from "./move-target.ts";

const load = (more: Partial<MovingLoad> = {}): MovingLoad => ({
  ...{ name: "acme", tier: "standard", region: null, tenants: 1 },
  ...{ bytes: 0, rps: 0, bytesLargest: 0, rpsLargest: 0 },
  ...more,
});
const reason = (...given: Parameters<typeof obstacleAt>) => obstacleAt(...given)?.decider.reason;
const room = { tenants: 10, bytes: 1000, rps: 100, maxTenantShare: 0.5 };
const cell = (more = {}) => aCell("cell-02", { capacity: room, ...more });

test("a target refuses for the reasons of a creation; a dedicated one is named", () => {
  expect(reason(cell(), [load()], noRoom)).toBeUndefined();
  expect(reason(cell({ state: "cordoned" }), [load()], noRoom)).toBe("state");
  expect(reason(cell({ health: "down" }), [load()], noRoom)).toBe("health");
  expect(reason(cell({ tiers: ["gold"] }), [load()], noRoom)).toBe("tier");
  expect(reason(cell(), [load({ region: "us" })], noRoom)).toBe("region");
  expect(reason(cell({ dedicated: true }), [load()], noRoom)).toBeUndefined();
  expect(reason(cell({ adopting: "cell-09" }), [load()], noRoom)).toBe("adoption");
});

test("what was taken by groups before counts, and so do the loads before in the same group", () => {
  const heavy = load({ bytes: 400, bytesLargest: 400 });
  expect(reason(cell(), [heavy, heavy], noRoom)).toBeUndefined();
  expect(reason(cell(), [heavy, heavy, heavy], noRoom)).toBe("capacity-bytes");
  expect(reason(cell(), [heavy], { tenants: 1, bytes: 601, rps: 0 })).toBe("capacity-bytes");
  expect(
    obstacleAt(cell(), [load(), load({ name: "globex", region: "us" })], noRoom)?.load.name,
  ).toBe("globex");
});

test("of many under one key the heaviest must not be the cell, and all must fit", () => {
  const many = load({ tenants: 8, bytes: 900, bytesLargest: 200, name: "users/slot/1" });
  expect(reason(cell(), [many], noRoom)).toBeUndefined();
  expect(reason(cell(), [{ ...many, bytesLargest: 600 }], noRoom)).toBe("tenant-share");
  expect(reason(cell(), [{ ...many, tenants: 11 }], noRoom)).toBe("capacity-tenants");
  expect(reason(cell(), [{ ...many, bytes: 1001 }], noRoom)).toBe("capacity-bytes");
});

test("a container without tenants takes no seat in a full cell", () => {
  const full = cell({ usage: { tenants: 10, bytes: 0, rps: 0 } });
  expect(reason(full, [load({ tenants: 0 })], noRoom)).toBeUndefined();
  expect(reason(full, [load()], noRoom)).toBe("capacity-tenants");
});

test("whatever is let in fits beside what is there", () => {
  const one = fc.record({ tenants: fc.nat(4), bytes: fc.nat(400), rps: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 5 }), one, (parts, taken) => {
      const loads = parts.map((part) => load({ ...part, bytesLargest: 0, rpsLargest: 0 }));
      if (obstacleAt(cell(), loads, taken) !== undefined) return;
      const all = roomOf(loads);
      expect(all.tenants + (loads.length === 0 ? 0 : taken.tenants)).toBeLessThanOrEqual(14);
      if (loads.some(({ tenants }) => tenants > 0)) {
        expect(all.tenants + taken.tenants).toBeLessThanOrEqual(room.tenants);
      }
      if (loads.length > 0) {
        expect(all.bytes + taken.bytes).toBeLessThanOrEqual(room.bytes);
        expect(all.rps + taken.rps).toBeLessThanOrEqual(room.rps);
      }
    }),
  );
});
