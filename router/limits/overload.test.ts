/** When the router looks at its event loop, and what it makes of it, over an invented clock. */
import { expect, test } from "vitest";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { Overload, type SheddingChange } from "./overload.ts";

function invented() {
  let nowMs = 0;
  let timers: Array<{ readonly atMs: number; readonly run: () => void }> = [];
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => nowMs,
    after: (ms, run) => {
      const timer = { atMs: nowMs + ms, run };
      timers.push(timer);
      const cancel = () => {
        timers = timers.filter((one) => one !== timer);
      };
      return { cancel };
    },
  };
  return {
    clock,
    pending: () => timers.length,
    /** The next timer, so much too late. */
    fire: (lateMs: number) => {
      const next = timers.shift();
      if (next === undefined) return;
      nowMs = next.atMs + lateMs;
      next.run();
    },
  };
}

test("an idle router has no timer, a busy one has one, and it stops by itself", () => {
  const { clock, pending, fire } = invented();
  const overload = new Overload(clock, { inFlightMax: 100, lateMs: 300 });
  expect(pending()).toBe(0);
  for (let nth = 0; nth < 50; nth += 1) overload.enter("normal");
  expect(pending()).toBe(1);
  fire(0);
  expect(pending()).toBe(1);
  for (let nth = 0; nth < 50; nth += 1) overload.leave();
  fire(0);
  expect([pending(), overload.inFlight]).toEqual([0, 0]);
});

test("a loop that stays late sheds the least important, and lets them in again when it is in time", () => {
  const { clock, pending, fire } = invented();
  const told: SheddingChange[] = [];
  const overload = new Overload(clock, { inFlightMax: 100, lateMs: 300 }, (one) => told.push(one));
  for (let nth = 0; nth < 5; nth += 1) overload.enter("normal");
  for (let nth = 0; nth < 3; nth += 1) fire(500);
  expect([overload.lateMs, told]).toEqual([
    500,
    [{ kind: "began", level: 1, lateMs: 500, underWay: 5 }],
  ]);
  expect([overload.isShedding("low"), overload.isShedding("normal")]).toEqual([true, false]);
  for (let nth = 0; nth < 9; nth += 1) fire(500);
  expect([overload.isShedding("high"), overload.isShedding("critical")]).toEqual([true, false]);
  for (let nth = 0; nth < 5; nth += 1) overload.leave();
  // Nobody is under way, but it goes on looking until nobody is refused any more.
  for (let nth = 0; nth < 30; nth += 1) fire(0);
  expect([overload.level, pending(), overload.lateMs]).toEqual([0, 0, 0]);
  expect(told.slice(1)).toEqual([{ kind: "ended", level: 0, lateMs: 0, underWay: 0 }]);
});

test("a late loop refuses nobody while few are under way, however late it is and was", () => {
  for (const [inFlightMax, floor] of [
    [100, 5],
    [8192, 64],
  ] as const) {
    const { clock, fire } = invented();
    const overload = new Overload(clock, { inFlightMax, lateMs: 300 });
    for (let nth = 1; nth < floor; nth += 1) overload.enter("low");
    for (let nth = 0; nth < 50; nth += 1) fire(5000);
    expect([overload.inFlight, overload.level, overload.isShedding("low")]).toEqual([
      floor - 1,
      0,
      false,
    ]);
    overload.enter("low");
    for (let nth = 0; nth < 3; nth += 1) fire(5000);
    expect([overload.isShedding("low"), overload.isShedding("critical")]).toEqual([true, false]);
    overload.leave();
    expect(overload.isShedding("low")).toBe(false);
  }
});

test("switched off it does not look, and the ceiling still holds", () => {
  const { clock, pending } = invented();
  const overload = new Overload(clock, { inFlightMax: 2, lateMs: 0 });
  expect([overload.enter("critical"), overload.enter("critical")]).toEqual([true, true]);
  expect([overload.enter("critical"), overload.inFlight, pending()]).toEqual([false, 2, 0]);
});
