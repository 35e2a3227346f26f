/** The time of a route's way: per revision and router, from publication to acknowledgement. */
import { expect, test } from "vitest";
import { createMetrics } from "../runtime/metrics.ts";
import { watchPropagation } from "./route-propagation.ts";

function start() {
  const metrics = createMetrics();
  let nowMs = 0;
  const watch = watchPropagation(metrics, () => nowMs);
  const at = (ms: number) => {
    nowMs = ms;
  };
  const figure = (ending: string) =>
    Number(new RegExp(`_seconds_${ending} (\\S+)`).exec(metrics.text())?.[1]);
  return { ...watch, at, figure };
}

test("each revision counts once per router, from its own publication", () => {
  const { published, acknowledged, at, figure } = start();
  acknowledged("router-1", 1);
  acknowledged("router-2", 1);
  published(2);
  at(1000);
  published(3);
  at(1500);
  acknowledged("router-1", 3);
  acknowledged("router-1", 3);
  acknowledged("router-1", 2); // An old word that came late.
  at(2000);
  acknowledged("router-2", 2);
  expect(figure("count")).toBe(3);
  expect(figure("sum")).toBe(1.5 + 0.5 + 2);
});

test("a router that begins to call is not judged by what came before", () => {
  const { published, acknowledged, at, figure } = start();
  published(2);
  at(60_000);
  acknowledged("router-9", 2);
  expect(figure("count")).toBe(0);
});
