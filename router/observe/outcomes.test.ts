/** What a router tells of how requests ended. */
import { expect, test } from "vitest";
import type { CellId } from "../../contract/ids.ts";
import { Outcomes } from "./outcomes.ts";

const cell = "a" as CellId;
const ended = (status: number, service?: string) => ({ cell, service, hasty: false, status });

test("what the router or the cell failed at is a failure, what the client did wrong is none", () => {
  const outcomes = new Outcomes();
  for (const status of [200, 302, 404, 429, 101]) outcomes.note(ended(status));
  for (const status of [500, 503, 504, 0]) outcomes.note(ended(status));
  expect(outcomes.totals()).toEqual([{ cell, service: "default", requests: 9, failures: 4 }]);
});

test("no cell's are requests without one, and those whose client had no time left", () => {
  const outcomes = new Outcomes();
  outcomes.note({ ...ended(503), cell: undefined });
  outcomes.note({ ...ended(504), hasty: true });
  expect(outcomes.totals()).toEqual([]);
});

test("totals stay, what is taken is new, and both come together again in another thread", () => {
  const worker = new Outcomes();
  const main = new Outcomes();
  worker.note(ended(200, "shop"));
  main.add(worker.take());
  worker.note(ended(503, "shop"));
  worker.note(ended(200));
  main.add(worker.take());
  expect(worker.take()).toEqual([]);
  expect(main.totals()).toEqual(worker.totals());
  expect(main.totals()).toEqual([
    { cell, service: "shop", requests: 2, failures: 1 },
    { cell, service: "default", requests: 1, failures: 0 },
  ]);
});
