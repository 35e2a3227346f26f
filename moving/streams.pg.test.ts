/** Streams of a move against two real databases, from `prepare` to `clean`, with writes going on. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { createStreams } from "./streams.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

let cells: TwoCells;
const streams = createStreams({ clock: systemClock });
const signal = new AbortController().signal;
beforeAll(async () => {
  cells = await startTwoCells();
});
afterAll(() => cells.close());

test("flow", async () => {
  const { a, b } = cells;
  await cells.own(a, "default/tenant/acme", "active");
  await cells.own(a, "default/tenant/globex", "active");
  for (let n = 0; n < 5; n += 1) {
    await cells.write(a.app, "acme");
    await cells.write(a.app, "globex");
  }
  const task = cells.task();
  const t0 = performance.now();
  await streams.prepare(task, signal);
  const t1 = performance.now();
  const told: unknown[] = [];
  await streams.copy(task, { rateMax: undefined, onProgress: (p) => told.push(p), signal });
  const t2 = performance.now();
  await streams.startStream(task);
  const t3 = performance.now();
  console.log(t1 - t0, t2 - t1, t3 - t2, told, await streams.streamState(task));
  await cells.write(a.app, "acme");
  for (let n = 0; n < 100; n += 1) {
    if ((await cells.countOf(b, "acme")) === 36) break;
    await systemClock.sleep(10);
  }
  console.log(await streams.streamState(task));
  expect(await cells.rowsOf(b, "acme")).toEqual(await cells.rowsOf(a, "acme"));
  expect(await cells.countOf(b, "globex")).toBe(0);
  const t4 = performance.now();
  await streams.undo(task, signal);
  console.log("undo", performance.now() - t4);
  expect(await cells.countOf(b, "acme")).toBe(0);
});
