/**
 * A tenant comes to a cell by a move while its standby streams (corrections A7): what follows behind the
 * copy bears another origin, and has to reach the partner all the same.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  bringIntoStep,
  eventually,
  keepWriting,
  never,
  streams,
  switchOver,
} from "../moving/streams.fixture.ts";
import { provider, type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

test("what a move brings in under load, copy and tail, is on the partner; what it purges at its source goes there too", async () => {
  const { a, b } = cells;
  const [source, home] = [await cells.annex("sb-a-source", b), await cells.annex("sb-b-home", a)];
  await cells.migrate(b);
  const pairs = [cells.pair(source), cells.pair(home, undefined, b)] as const;
  await cells.tenant("mover");
  for (const pair of pairs) await provider.ensure(pair, never);
  for (const pair of pairs) await cells.inStep(pair);
  const task = cells.task({ tenants: ["mover"] });
  const writer = keepWriting(cells, await a.connect(), "mover");
  await bringIntoStep(task);
  const copied = writer.written();
  await eventually("a tail behind the copy", async () => writer.written() > copied + 10);
  await switchOver(cells, task);
  await writer.stop();
  await cells.write(b.app, "mover", 99);
  await cells.arrived(home, b);
  const rows = await cells.rowsOf(b, "mover");
  expect(await cells.rowsOf(home, "mover")).toEqual(rows);
  expect(rows["orders"]?.split("\n").length).toBeGreaterThan(14);

  await streams.turnAround(task);
  await streams.clean(task, never);
  await cells.arrived(source, a);
  expect([await cells.countOf(a, "mover"), await cells.countOf(source, "mover")]).toEqual([0, 0]);
  expect(await cells.rowsOf(home, "mover")).toEqual(rows);
  for (const pair of pairs) await provider.drop(pair, "there");
});
