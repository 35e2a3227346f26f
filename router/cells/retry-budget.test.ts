/** Second attempts stay a fifth of the requests, and a few are always free. */
import { expect, test } from "vitest";
import { RetryBudget, retryBudgetLimits } from "./retry-budget.ts";

/** Takes as many as there are at this moment. */
const drain = (budget: RetryBudget, nowMs: number): number => {
  let taken = 0;
  while (budget.take(nowMs)) taken += 1;
  return taken;
};

test("without requests it is 3 a second, 30 at once", () => {
  const budget = new RetryBudget(retryBudgetLimits, 0);
  expect(drain(budget, 0)).toBe(30);
  let later = 0;
  for (let nowMs = 100; nowMs <= 100_000; nowMs += 100) later += drain(budget, nowMs);
  expect(later / 100).toBeLessThanOrEqual(3);
  expect(later / 100).toBeGreaterThan(2.5);
});

test("under load it is a fifth of the requests, and no more when all of them fail", () => {
  const budget = new RetryBudget(retryBudgetLimits, 0);
  let requests = 0;
  let retries = 0;
  for (let nowMs = 0; nowMs < 60_000; nowMs += 1) {
    budget.noteRequest(nowMs);
    requests += 1;
    if (budget.take(nowMs)) retries += 1;
  }
  // The free ones come on top.
  expect(retries / requests).toBeLessThan(0.2 + 0.01);
  expect(retries / requests).toBeGreaterThan(0.15);
});

test("an hour without trouble is no credit", () => {
  const budget = new RetryBudget(retryBudgetLimits, 0);
  for (let second = 0; second < 3600; second += 1) {
    for (let nth = 0; nth < 100; nth += 1) budget.noteRequest(second * 1000);
  }
  expect(drain(budget, 3_600_000)).toBeLessThanOrEqual(30 + 0.2 * 100 * 10);
});
