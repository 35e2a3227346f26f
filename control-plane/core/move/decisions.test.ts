/** Whose turn it is, what a wish means, what a failure comes to: at every step of the table. */
import { describe, expect, test } from "vitest";
import { errorCodes } from "../../../contract/errors.ts";
import { type MoveStep, moveSteps } from "../../../contract/move-api.ts";
import { admit } from "./admit.ts";
import { betweenTriesMs, judgeFailure, patienceDefault, retryDelayMs } from "./failure.ts";
import { canAbandon, isMoveEnd, isReversible, switchSteps } from "./move-state.ts";
import { isDue, weighWish } from "./wishes.ts";

const move = (id: string, step: MoveStep, source: string, target: string, paused = false) => ({
  ...{ id, step, source, target, paused },
});
const ids = (moves: ReadonlyArray<{ readonly id: string }>) => moves.map(({ id }) => id);

describe("whose turn it is", () => {
  const limits = { perSource: 2, perTarget: 2 };

  test("the oldest, as many as their cells may have at a time", () => {
    const waiting = ["1", "2", "3"].map((id) => move(id, "planned", "a", "b"));
    expect(ids(admit(waiting, limits))).toEqual(["1", "2"]);
    expect(ids(admit([move("0", "copying", "a", "b"), ...waiting], limits))).toEqual(["1"]);
  });

  test("a cell that is busy keeps nobody from another; a target counts as a source does", () => {
    const busy = [move("0", "copying", "a", "b"), move("1", "verifying", "a", "c")];
    const waiting = [move("2", "planned", "a", "d"), move("3", "planned", "x", "b")];
    expect(ids(admit([...busy, ...waiting], limits))).toEqual(["3"]);
    expect(ids(admit([...busy, ...waiting], { perSource: 9, perTarget: 1 }))).toEqual(["2"]);
  });

  test("what waits for people or soaks takes no turn; what is paused gets none", () => {
    const resting = (["ready", "soaking", "diverged"] as const).map((step, nth) =>
      move(`0${nth}`, step, "a", "b"),
    );
    const waiting = [move("1", "planned", "a", "b", true), move("2", "planned", "a", "b")];
    expect(ids(admit([...resting, ...waiting], limits))).toEqual(["2"]);
  });
});

describe("what was asked", () => {
  test("a cancellation is heard wherever a move can be taken back, and nowhere else", () => {
    for (const step of moveSteps.filter((one) => !isMoveEnd(one))) {
      const bidding = weighWish({ step, wish: "cancel", paused: false });
      const expected = canAbandon(step)
        ? "abandon"
        : switchSteps.includes(step)
          ? "back-off"
          : "go-on";
      expect(bidding, step).toBe(expected);
      if (bidding !== "go-on") expect(isReversible(step), step).toBe(true);
    }
  });

  test("a pause holds no switch that has begun, and does not keep a cancellation out", () => {
    expect(weighWish({ step: "ready", wish: "switch", paused: true })).toBe("wait");
    expect(weighWish({ step: "fencing", wish: "none", paused: true })).toBe("go-on");
    expect(weighWish({ step: "copying", wish: "cancel", paused: true })).toBe("abandon");
  });

  test("a move that soaks is due when its time is over, or when somebody says so", () => {
    const soaking = { step: "soaking", wish: "none", soakUntilMs: 100 } as const;
    expect(isDue(soaking, 99)).toBe(false);
    expect(isDue(soaking, 100)).toBe(true);
    expect(isDue({ ...soaking, wish: "complete" }, 0)).toBe(true);
    expect(isDue({ ...soaking, step: "diverged" }, 1000)).toBe(false);
    expect(isDue({ ...soaking, step: "diverged", wish: "complete" }, 0)).toBe(true);
  });
});

describe("what a failure comes to", () => {
  test("in the switch it is taken back, after the commit it is tried again, whatever it is", () => {
    for (const code of errorCodes) {
      for (const step of switchSteps) expect(judgeFailure(step, { code }, 0)).toBe("back-off");
      for (const step of ["activating", "routing", "reversing", "cleaning"] as const) {
        expect(judgeFailure(step, { code }, 10 * patienceDefault.stepMs)).toBe("retry");
      }
    }
  });

  test("before it, what may pass is waited for, for a while", () => {
    expect(judgeFailure("copying", { code: "CELL_DATABASE_UNREACHABLE" }, 0)).toBe("retry");
    expect(
      judgeFailure("copying", { code: "CELL_DATABASE_UNREACHABLE" }, patienceDefault.stepMs),
    ).toBe("abandon");
    expect(judgeFailure("copying", { code: undefined }, 0)).toBe("retry");
    expect(judgeFailure("copying", { code: "MOVE_STREAM_BROKEN" }, 0)).toBe("abandon");
    expect(judgeFailure("preflight", { code: "MOVE_UNFIT" }, 0)).toBe("abandon");
  });

  test("so is somebody else's lock, by whatever name the refusal goes", () => {
    const locked = { code: "MOVE_UNFIT", sqlState: "55P03" } as const;
    for (const step of ["preparing", "copying", "catching-up"] as const) {
      expect(judgeFailure(step, locked, 0)).toBe("retry");
      expect(judgeFailure(step, locked, patienceDefault.stepMs)).toBe("abandon");
    }
    expect(judgeFailure("copying", { ...locked, sqlState: "42501" }, 0)).toBe("abandon");
  });

  test("delays grow to a limit", () => {
    const delays = [1, 2, 3, 30].map((failures) => retryDelayMs("copying", failures));
    expect(delays).toEqual([200, 400, 800, 5000]);
    expect(retryDelayMs("activating", 30)).toBe(500);
    expect([1, 2, 20].map(betweenTriesMs)).toEqual([250, 500, 5000]);
  });
});
