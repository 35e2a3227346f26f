import { describe, test } from "vitest";
import type { Clock } from "../runtime/clock.ts";
import { createUnit, type Launched, type UnitStatus } from "./unit.ts";

/** A unit whose processes the test ends, on a clock that the test moves. */
function scene(restart: boolean) {
  const timers: Array<{ ms: number; run: () => void; dead: boolean }> = [];
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    after: (ms, run) => {
      const timer = { ms, run, dead: false };
      timers.push(timer);
      return {
        cancel: () => {
          timer.dead = true;
        },
      };
    },
    sleep: async () => {},
  };
  const launched: Array<{ end: (how: string) => void; ended: string[] }> = [];
  const changes: UnitStatus[] = [];
  let failNext = false;
  const unit = createUnit({
    name: "it",
    restart,
    clock,
    onChange: (status) => changes.push(status),
    launch: async (): Promise<Launched> => {
      if (failNext) {
        failNext = false;
        throw new Error("port taken");
      }
      const { promise, resolve } = Promise.withResolvers<string>();
      const ended: string[] = [];
      launched.push({ end: resolve, ended });
      const finish = (how: string) => async () => {
        ended.push(how);
        resolve(how);
      };
      return { pid: launched.length, gone: promise, stop: finish("stop"), kill: finish("kill") };
    },
  });
  return {
    unit,
    launched,
    changes,
    pauses: () => timers.filter((timer) => !timer.dead).map((timer) => timer.ms),
    elapse: async () => {
      for (const timer of timers.splice(0)) if (!timer.dead) timer.run();
      await settle();
    },
    failNext: () => {
      failNext = true;
    },
  };
}

const settle = () => new Promise((done) => setTimeout(done, 0));

describe("a unit that ended by itself", () => {
  test("stays dead when it belongs to a cell", async ({ expect }) => {
    const { unit, launched, pauses } = scene(false);
    await unit.start();
    launched[0]?.end("signal SIGKILL");
    await settle();
    expect(unit.status()).toMatchObject({
      state: "dead",
      pid: null,
      text: "ended by itself: signal SIGKILL",
    });
    expect(pauses()).toEqual([]);
    await unit.start();
    expect(unit.status()).toMatchObject({ state: "running", pid: 2 });
  });

  test("is started again with growing pauses otherwise", async ({ expect }) => {
    const { unit, launched, pauses, elapse, failNext } = scene(true);
    await unit.start();
    launched[0]?.end("exit code 1");
    await settle();
    expect(pauses()).toEqual([250]);
    await elapse();
    expect(unit.status()).toMatchObject({ state: "running", restarts: 1 });
    launched[1]?.end("exit code 1");
    await settle();
    expect(pauses()).toEqual([500]);
    failNext();
    await elapse();
    expect(unit.status()).toMatchObject({ state: "dead", text: "did not start: port taken" });
    expect(pauses()).toEqual([1000]);
    await elapse();
    expect(unit.status()).toMatchObject({ state: "running", restarts: 3 });
  });

  test("is not started again once it was stopped or killed by name", async ({ expect }) => {
    for (const action of ["stop", "kill"] as const) {
      const { unit, launched, elapse } = scene(true);
      await unit.start();
      launched[0]?.end("exit code 1");
      await settle();
      await unit[action]();
      await elapse();
      expect(launched).toHaveLength(1);
      expect(unit.status().state).toBe(action === "stop" ? "stopped" : "dead");
    }
  });
});

describe("actions on a unit", () => {
  test("asked twice do once", async ({ expect }) => {
    const { unit, launched } = scene(true);
    await Promise.all([unit.start(), unit.start()]);
    expect(launched).toHaveLength(1);
    await Promise.all([unit.stop(), unit.stop()]);
    expect(launched[0]?.ended).toEqual(["stop"]);
    expect(unit.status()).toMatchObject({ state: "stopped", text: "stopped by request" });
  });

  test("a kill by name is a death that nobody mends", async ({ expect }) => {
    const { unit, launched, pauses } = scene(true);
    await unit.start();
    await unit.kill();
    expect(launched[0]?.ended).toEqual(["kill"]);
    expect(unit.status()).toMatchObject({ state: "dead" });
    expect(pauses()).toEqual([]);
  });

  test("a kill of what is stopped leaves it stopped", async ({ expect }) => {
    const { unit } = scene(false);
    await unit.start();
    await unit.stop();
    await unit.kill();
    expect(unit.status().state).toBe("stopped");
  });

  test("a start that failed is told, and may be repeated", async ({ expect }) => {
    const { unit, failNext } = scene(false);
    failNext();
    await expect(unit.start()).rejects.toThrow("port taken");
    expect(unit.status()).toMatchObject({ state: "dead", text: "did not start: port taken" });
    await unit.start();
    expect(unit.status().state).toBe("running");
  });
});
