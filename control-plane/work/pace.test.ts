import { expect, test } from "vitest";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { paced } from "./pace.ts";

/** A clock whose timers fire when the test says so. */
function handClock(): { readonly clock: Clock; readonly fire: () => void } {
  let due: Array<() => void> = [];
  return {
    clock: {
      ...systemClock,
      after: (_ms, run) => {
        due.push(run);
        return {
          cancel: () => {
            due = due.filter((one) => one !== run);
          },
        };
      },
    },
    fire: () => {
      const now = due;
      due = [];
      for (const run of now) run();
    },
  };
}

test("the first call goes at once, those within the gap together at its end, the last is never lost", () => {
  const { clock, fire } = handClock();
  let calls = 0;
  const { call, close } = paced(clock, 25, () => {
    calls += 1;
  });
  call();
  expect(calls).toBe(1);
  call();
  call();
  call();
  expect(calls).toBe(1);
  fire();
  expect(calls).toBe(2);
  fire();
  expect(calls).toBe(2);
  call();
  expect(calls).toBe(3);
  call();
  close();
  fire();
  expect(calls).toBe(3);
});
