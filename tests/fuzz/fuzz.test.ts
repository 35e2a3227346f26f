/** A slice of the fuzzing in `main.ts`, which CI runs at length. */
import { expect, test } from "vitest";
import { fuzz } from "./run.ts";

test("no request is split, joined, misled or answered twice, whatever bytes come", async () => {
  const report = await fuzz({ protocol: "http1", requests: 5000, seed: 4 });
  expect(report.findings).toEqual([]);
  expect(report.socketsLeft).toBe(0);
  // The grammar is worth something only if most of what it says is carried.
  expect(report.answered).toBeGreaterThan(1500);
  expect(report.carried).toBeGreaterThanOrEqual(report.answered);
}, 120_000);

test("nor in HTTP/2, whatever frames come", async () => {
  const report = await fuzz({ protocol: "http2", requests: 2000, seed: 4 });
  expect(report.findings).toEqual([]);
  expect(report.socketsLeft).toBe(0);
  expect(report.answered).toBeGreaterThan(600);
  expect(report.carried).toBeGreaterThanOrEqual(report.answered);
}, 120_000);
