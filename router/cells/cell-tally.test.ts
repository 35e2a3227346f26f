/** When the control plane is told at once what a router sees of a cell. */
import { expect, test } from "vitest";
import type { CellId } from "../../contract/ids.ts";
import { CellTally } from "./cell-tally.ts";

const cell = "a" as CellId;

function start() {
  let nowMs = 0;
  let news = 0;
  const tally = new CellTally(() => nowMs);
  tally.onNews(() => {
    news += 1;
  });
  const see = (outcomes: string) => {
    for (const one of outcomes) tally.note(cell, one === "x");
  };
  return { tally, see, news: () => news, pass: (ms: number) => (nowMs += ms) };
}

test("a cell that serves is no news, nor is one failure among many", () => {
  const { tally, see, news } = start();
  see("......x.....x....x");
  expect(news()).toBe(0);
  expect(tally.take()).toEqual([{ cell, requests: 18, failures: 3, anew: false }]);
  expect(tally.take()).toEqual([]);
});

test("one that begins to fail is news, and the share tells what is so now", () => {
  const { tally, see, news } = start();
  see("....................x");
  expect(news()).toBe(0);
  see("x");
  expect(news()).toBe(1);
  expect(tally.take()).toEqual([{ cell, requests: 2, failures: 2, anew: true }]);
  see("xx.x");
  // It goes on, and is told on.
  expect(news()).toBe(4);
  expect(tally.take()).toEqual([{ cell, requests: 4, failures: 3, anew: false }]);
});

test("one that serves again is news", () => {
  const { tally, see, news } = start();
  see("xx");
  tally.take();
  see("..");
  expect(news()).toBe(1);
  see(".");
  expect(news()).toBe(2);
  expect(tally.take()).toEqual([{ cell, requests: 3, failures: 0, anew: true }]);
});

test("one that has failed for long is told in good time only", () => {
  const { see, news, pass } = start();
  see("xx");
  pass(10_000);
  see("xxxxxxxx");
  expect(news()).toBe(1);
});
