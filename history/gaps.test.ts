import { expect, test } from "vitest";
import { longestGaps } from "./gaps.ts";
import type { Entry } from "./model.ts";

const write = (tenant: string, at: number, okAt: number): Entry[] => [
  { kind: "invoke", at, process: `${tenant}${at}`, tenant, value: `${tenant}${at}` },
  { kind: "ok", at: okAt, process: `${tenant}${at}`, cell: "cell-01", epoch: 1, ref: `${at}` },
];

test("the longest time between two acknowledgements, per tenant, and when it ended", () => {
  const entries = [
    ...write("acme", 0, 5),
    ...write("acme", 5, 105),
    ...write("globex", 100, 110),
    ...write("acme", 110, 115),
    ...write("globex", 111, 141),
  ];
  expect(longestGaps(entries).get("acme")).toEqual({
    tenant: "acme",
    longestMs: 100,
    endedAt: 105,
    acknowledged: 3,
  });
  expect(longestGaps(entries).get("globex")).toMatchObject({ longestMs: 31, endedAt: 141 });
  expect(longestGaps(entries, 100).get("acme")).toMatchObject({ longestMs: 10, acknowledged: 2 });
  expect(longestGaps(entries, 0, 1).size).toBe(0);
});
