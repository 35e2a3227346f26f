/** Applications at ready standbys: one is started at a time, none in a takeover, and a failure is not repeated at once. */
import { expect, test } from "vitest";
import { systemClock } from "../../../runtime/clock.ts";
import { aStandby } from "../../core/standby/standby.fixture.ts";
import type { StandbyWorld } from "../../store/standby/world.ts";
import { createSettling, settlingDefault } from "./settling.ts";
import { createWarming } from "./warming.ts";

const ready = (annex: string, more: object = {}) =>
  aStandby(annex, "cell-01", "cell-02", { state: "ready", ...more });
const worldOf = (
  standbys: StandbyWorld["standbys"],
  failovers: StandbyWorld["failovers"] = new Map(),
): StandbyWorld => ({
  ...{ mode: "normal", cells: [], partners: new Map(), moves: new Map() },
  ...{ standbys, failovers },
});

function start() {
  const asked: string[] = [];
  let answer = Promise.withResolvers<void>();
  let nowMs = 0;
  const warming = createWarming({
    clock: { ...systemClock, monotonicMs: () => nowMs },
    provider: {
      act: async (annex, action) => {
        asked.push(`${action} ${annex}`);
        await answer.promise;
        throw new Error("its machine is busy");
      },
    },
  });
  const fail = async () => {
    answer.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    answer = Promise.withResolvers<void>();
  };
  return { warming, asked, fail, wait: (ms: number) => (nowMs += ms) };
}

test("cold ones that are ready, one after the other; what failed waits", async () => {
  const { warming, asked, fail, wait } = start();
  const world = worldOf([
    ...[ready("sb-warm", { warm: true }), ready("sb-by-hand", { byHand: true })],
    ...[ready("sb-whole", { provider: "physical" }), ready("sb-early", { state: "syncing" })],
    ...[ready("sb-a"), ready("sb-b")],
  ]);
  warming.see(world);
  warming.see(world);
  expect(asked).toEqual(["serve sb-a"]);
  await fail();
  warming.see(world);
  await fail();
  warming.see(world);
  expect(asked).toEqual(["serve sb-a", "serve sb-b"]);
  wait(5000);
  warming.see(world);
  expect(asked).toEqual(["serve sb-a", "serve sb-b", "serve sb-a"]);
  await fail();
  await warming.stopAll();
});

test("none while a failover is under way, and no new standby while keys change hands, for a minute at most", () => {
  const { warming, asked } = start();
  warming.see(worldOf([ready("sb-a")], new Map([["cell-03", "revoking"]])));
  expect(asked).toEqual([]);
  const settling = createSettling(settlingDefault);
  settling.see([], 0);
  expect(settling.see([], 5000).settled).toBe(true);
  expect(settling.see([], 6000, true).settled).toBe(false);
  expect(settling.see([], 65_999, true).settled).toBe(false);
  expect(settling.see([], 66_000, true).settled).toBe(true);
});
