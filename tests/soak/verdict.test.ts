/** What a soak takes for a problem, with plain values. */
import { expect, test } from "vitest";
import { createLatencies } from "./latencies.ts";
import { problemsOf, quarters, type Rest, type Soaked } from "./verdict.ts";

const sample = { rssMiB: 200, files: 30, unaccepted: 0, starvedMs: 0 };
const rest: Rest = { sample, heaps: [35], objects: new Map([["Socket", 40]]), left: [] };
const flat: Soaked = {
  ...{ faults: [], troubles: [], exit: 0, idle: sample, rests: [rest, rest] },
  ...{ samples: Array.from({ length: 12 }, () => sample), heapsUnderLoad: [40, 43, 41, 42] },
};
const afterwards = (changed: Partial<Rest>): Soaked => ({
  ...flat,
  rests: [rest, { ...rest, ...changed }],
});

test("a router that gives everything back is without problems", () => {
  expect(problemsOf(flat)).toEqual([]);
});

test.each<[string, Soaked, string]>([
  ["a good client's error", { ...flat, faults: ["a t-1: 502"] }, "a t-1: 502"],
  ["a line of the router's log", { ...flat, troubles: ["stderr: oh"] }, "stderr: oh"],
  ["an end that is none", { ...flat, exit: null }, "the router's exit code is null"],
  ["a seat", afterwards({ left: ["ws_open 1"] }), "not given back: ws_open 1"],
  [
    "a socket",
    afterwards({ sample: { ...sample, files: 39 } }),
    "files: 30 before the load, 39 after it",
  ],
  [
    "objects",
    afterwards({ objects: new Map([["Socket", 291]]) }),
    "Socket: 40 at the first rest, 291 at the second",
  ],
  [
    "bytes",
    afterwards({ heaps: [42] }),
    "the heap grows: 35 MiB at the first rest, 42 MiB at the second",
  ],
  [
    "memory under load",
    { ...flat, samples: flat.samples.map((one, at) => ({ ...one, rssMiB: 200 + at * 10 })) },
    "memory grows under load: 240 → 300 MiB",
  ],
  [
    "the heap under load",
    { ...flat, heapsUnderLoad: [40, 50, 60, 90] },
    "the heap grows under load: 50 → 90 MiB",
  ],
])("%s that was not given back is one problem", (_what, soaked, problem) => {
  expect(problemsOf(soaked)).toEqual([problem]);
});

test("of many faults the first are shown, and how many there were", () => {
  const problems = problemsOf({ ...flat, faults: Array.from({ length: 50 }, () => "fault") });
  expect(problems).toHaveLength(21);
  expect(problems.at(-1)).toBe("50 faults in all");
});

test("a run too short for quarters has them all the same", () => {
  expect(quarters([])).toEqual([0, 0]);
  expect(quarters([7])).toEqual([7, 7]);
});

test("times are told to a tenth of a millisecond", () => {
  const latencies = createLatencies();
  for (let ms = 1; ms <= 100; ms += 1) latencies.note(ms + 0.04);
  expect([latencies.at(0.5), latencies.at(0.99), latencies.max()]).toEqual([50, 99, 100]);
});
