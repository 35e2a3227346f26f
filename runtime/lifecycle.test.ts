import { describe, expect, test } from "vitest";
import { systemClock } from "./clock.ts";
import { createLifecycle, withDeadline } from "./lifecycle.ts";

const never = () => new Promise<void>(() => {});

describe("a lifecycle", () => {
  test("undoes in reverse order, once, even when asked twice", async () => {
    const done: string[] = [];
    const lifecycle = createLifecycle({
      clock: systemClock,
      graceMs: 10_000,
      onTrouble: (name) => done.push(`trouble ${name}`),
    });
    for (const name of ["database", "listener", "loop"]) {
      lifecycle.onClose(name, async () => {
        done.push(name);
      });
    }
    await Promise.all([lifecycle.close(), lifecycle.close()]);
    expect(done).toEqual(["loop", "listener", "database"]);
  });

  test("a step that throws or hangs does not keep the others from closing", async () => {
    const done: string[] = [];
    const lifecycle = createLifecycle({
      clock: systemClock,
      graceMs: 20,
      onTrouble: (name, error) => done.push(`${name}: ${String(error)}`),
    });
    lifecycle.onClose("first", () => {
      done.push("first");
    });
    lifecycle.onClose("hanging", never);
    lifecycle.onClose("throwing", () => {
      throw new Error("no");
    });
    await lifecycle.close();
    expect(done).toEqual([
      "throwing: Error: no",
      "hanging: Error: not finished within 20 ms",
      "first",
    ]);
  });
});

test("work that is done in time passes its result and its error on", async () => {
  await expect(withDeadline(systemClock, 60_000, async () => 7)).resolves.toBe(7);
  const failing = async () => {
    throw new Error("own");
  };
  await expect(withDeadline(systemClock, 60_000, failing)).rejects.toThrow("own");
});
