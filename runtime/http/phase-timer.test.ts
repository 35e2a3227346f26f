import { once } from "node:events";
import { connect, createServer } from "node:net";
import { expect, test, vi } from "vitest";
import { type Clock, systemClock } from "../clock.ts";
import { listenPort } from "./peers.fixture.ts";
import { PhaseTimer, sweepMs } from "./phase-timer.ts";

/** A clock that stands until it is moved, and counts the timers that were asked of it. */
function heldClock() {
  let nowMs = 0;
  let asked = 0;
  const waiting = new Map<number, { readonly atMs: number; readonly run: () => void }>();
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: (ms, run) => {
      asked += 1;
      const id = asked;
      waiting.set(id, { atMs: nowMs + ms, run });
      return { cancel: () => void waiting.delete(id) };
    },
    sleep: async () => {},
  };
  const advance = (toMs: number) => {
    for (; nowMs < toMs; nowMs += 1) {
      for (const [id, { atMs, run }] of [...waiting]) {
        if (atMs > nowMs || !waiting.delete(id)) continue;
        run();
      }
    }
  };
  return { clock, advance, asked: () => asked, waiting: () => waiting.size };
}

function watcher(clock: Clock) {
  const heard: string[] = [];
  const timer = new PhaseTimer(clock, (trouble) => heard.push(`${trouble}@${clock.monotonicMs()}`));
  return { timer, heard };
}

test("a silence is heard when it is long enough, once, and never too soon", () => {
  const { clock, advance } = heldClock();
  const { timer, heard } = watcher(clock);
  timer.watch(2000, "connect");
  advance(1998);
  expect(heard).toEqual([]);
  advance(5000);
  expect(heard).toHaveLength(1);
  expect(heard[0]).toMatch(/^connect@(1999|20[0-2]\d)$/);
});

test("a later phase, a touch and an interruption count from their own moment", () => {
  const { clock, advance } = heldClock();
  const { timer, heard } = watcher(clock);
  timer.watch(2000, "connect");
  advance(1500);
  timer.watch(1000, "head-timeout");
  advance(2400);
  timer.touch();
  advance(3300);
  const restore = timer.interrupt(100, "client-stalled");
  advance(3350);
  restore();
  advance(4300);
  expect(heard).toEqual([]);
  advance(4400);
  expect(heard.map((one) => one.split("@")[0])).toEqual(["head-timeout"]);
});

test("a shorter limit than those of all others is kept to", () => {
  const { clock, advance } = heldClock();
  const long = watcher(clock);
  long.timer.watch(60_000, "body-timeout");
  advance(100);
  const short = watcher(clock);
  short.timer.watch(50, "replaced");
  advance(100 + 50 + sweepMs + 2);
  expect(short.heard).toHaveLength(1);
  expect(long.heard).toEqual([]);
});

test("what was stopped is silent, and a thousand exchanges set one timer of the system", () => {
  const { clock, advance, asked, waiting } = heldClock();
  const all = Array.from({ length: 1000 }, () => watcher(clock));
  for (const { timer } of all) {
    timer.watch(2000, "connect");
    timer.watch(30_000, "head-timeout");
    timer.watch(60_000, "body-timeout");
    timer.stop();
  }
  expect(asked()).toBe(1);
  advance(100_000);
  expect(all.flatMap(({ heard }) => heard)).toEqual([]);
  expect(waiting()).toBe(0);
});

test("many silences at once are heard together, and one of them may end another", () => {
  const { clock, advance } = heldClock();
  const heard: string[] = [];
  const second = new PhaseTimer(clock, () => heard.push("second"));
  const first = new PhaseTimer(clock, () => {
    heard.push("first");
    second.stop();
  });
  first.watch(100, "connect");
  second.watch(100, "connect");
  advance(1000);
  expect(heard).toEqual(["first"]);
});

test("what arrived while the process stood still is read before anybody is told of a silence", async () => {
  const server = createServer((socket) => socket.end("there"));
  const port = await listenPort(server);
  const { timer, heard } = watcher(systemClock);
  const socket = connect(port, "127.0.0.1");
  socket.on("connect", () => timer.stop());
  timer.watch(300, "connect");
  // As a long collection, or a machine that is moved: the connection stands, and nobody has looked.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  await once(socket, "connect");
  expect(heard).toEqual([]);
  timer.watch(50, "head-timeout");
  await vi.waitFor(() => expect(heard).toHaveLength(1));
  socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

test("whoever stops, in whatever order, stops alone: all others are still heard", () => {
  const { clock, advance } = heldClock();
  const all = Array.from({ length: 6 }, () => watcher(clock));
  for (const { timer } of all) timer.watch(500, "connect");
  for (const at of [0, 5, 2]) all[at]?.timer.stop();
  all[0]?.timer.watch(500, "connect");
  advance(1000);
  expect(all.map(({ heard }) => heard.length)).toEqual([1, 1, 0, 1, 1, 0]);
});
