/** Waiting has bounds, ends for everybody, and keeps its order. */
import { afterEach, describe, expect, test, vi } from "vitest";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { systemClock } from "../../runtime/clock.ts";
import { Hold, type HoldVerdict, holdEvents, holdStates, stepHold } from "./hold.ts";

const key = (name: string) => `default/tenant/${name}` as PlacementKey;
const never = new AbortController().signal;
let counted: HoldVerdict[] = [];
const create = (limits: Partial<ConstructorParameters<typeof Hold>[0]["limits"]> = {}) => {
  counted = [];
  return new Hold({
    clock: systemClock,
    limits: { holdMs: 5000, perKeyMax: 3, totalMax: 4, batchMax: 2, ...limits },
    onVerdict: (verdict) => counted.push(verdict),
  });
};
const holds: Hold[] = [];
afterEach(() => {
  for (const hold of holds.splice(0)) hold.release(() => true);
});
const wait = (hold: Hold, name: string, signal: AbortSignal = never) =>
  hold.wait(key(name), hold.deadline(), signal);

test("the states, drawn", () => {
  const lines = holdStates.flatMap((state) =>
    holdEvents
      .filter((event) => stepHold(state, event) !== state)
      .map((event) => `${state} --${event}--> ${stepHold(state, event)}`),
  );
  expect(lines).toEqual([
    "idle --arrived--> holding",
    "holding --released--> draining",
    "holding --emptied--> idle",
    "draining --held-again--> holding",
    "draining --emptied--> idle",
  ]);
});

describe("a held request", () => {
  test("goes on when its key is free, and not when another is", async () => {
    const hold = create();
    holds.push(hold);
    const acme = wait(hold, "acme");
    const globex = wait(hold, "globex");
    expect(hold.stateOf(key("acme"))).toBe("holding");
    hold.release((one) => one === key("acme"));
    expect(await acme).toBe("released");
    expect([hold.held, hold.stateOf(key("acme")), hold.stateOf(key("globex"))]).toEqual([
      1,
      "idle",
      "holding",
    ]);
    hold.release(() => true);
    expect(await globex).toBe("released");
    expect(counted).toEqual(["released", "released"]);
  });

  test("ends after its time, whether or not anybody releases it", async () => {
    const hold = create({ holdMs: 20 });
    expect(await wait(hold, "acme")).toBe("timeout");
    expect([hold.held, hold.stateOf(key("acme"))]).toEqual([0, "idle"]);
    expect(await hold.wait(key("acme"), systemClock.monotonicMs() - 1, never)).toBe("timeout");
  });

  test("ends when its client goes", async () => {
    const hold = create();
    const client = new AbortController();
    const waiting = wait(hold, "acme", client.signal);
    client.abort();
    expect(await waiting).toBe("client-gone");
    expect(await wait(hold, "acme", client.signal)).toBe("client-gone");
    expect(hold.held).toBe(0);
  });

  test("is one of a bounded number, per key and in all", async () => {
    const hold = create();
    const waiting = ["acme", "acme", "acme"].map((name) => wait(hold, name));
    expect(await wait(hold, "acme")).toBe("key-full");
    waiting.push(wait(hold, "globex"));
    expect(await wait(hold, "globex")).toBe("router-full");
    expect(hold.held).toBe(4);
    hold.release(() => true);
    expect(await Promise.all(waiting)).toEqual(waiting.map(() => "released"));
    expect(hold.held).toBe(0);
  });

  test("is released in order, some at a time, and stays when the key is held again meanwhile", async () => {
    const hold = create({ perKeyMax: 10, totalMax: 10 });
    holds.push(hold);
    const order: number[] = [];
    const waiting = [0, 1, 2, 3].map(async (nth) => {
      await wait(hold, "acme");
      order.push(nth);
    });
    hold.release(() => true);
    expect(hold.stateOf(key("acme"))).toBe("draining");
    hold.release(() => false);
    expect(hold.stateOf(key("acme"))).toBe("holding");
    await vi.waitFor(() => expect(order).toEqual([0, 1]));
    await systemClock.sleep(20);
    expect([order, hold.held]).toEqual([[0, 1], 2]);
    hold.release(() => true);
    await Promise.all(waiting);
    expect(order).toEqual([0, 1, 2, 3]);
  });
});
