/** A copy that was cut off in the middle and that PostgreSQL does not go on with: it is told, and made anew. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, never } from "../moving/streams.fixture.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { createLogicalStandby } from "./logical.ts";
import { type StandbyCells, startStandbyCells } from "./standby.fixture.ts";

const provider = createLogicalStandby({
  clock: systemClock,
  unattended: { silentMs: 300, looks: 3, gapMs: 10_000 },
});
let cells: StandbyCells;
beforeAll(async () => {
  cells = await startStandbyCells();
});
afterAll(async () => {
  await provider.close();
  await cells.close();
});

test("a copy without a worker is stopped, with the table's name; one that was not begun waits", async () => {
  const annex = await cells.annex("sb-cut");
  const pair = cells.pair(annex);
  await cells.tenant("acme");
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  const { rows } = await annex.admin.query<{ pid: number }>(
    "select pid from pg_stat_subscription where relid is null and pid is not null",
  );
  const { pid } = must(rows[0], "the stream's worker");
  const mark = (state: string) =>
    annex.admin.query(
      "update pg_subscription_rel set srsubstate = $1 where srrelid = 'notes'::regclass",
      [state],
    );
  process.kill(pid, "SIGSTOP"); // Who would start workers for copies stands still.
  try {
    await mark("i");
    for (let looks = 0; looks < 5; looks += 1) {
      expect(await provider.status(pair)).toMatchObject({ phase: "copying" });
      await systemClock.sleep(100);
    }
    await mark("d");
    expect(await provider.status(pair)).toMatchObject({ phase: "copying" });
    await eventually("the copy is given up", async () => {
      const { phase, reason } = await provider.status(pair);
      return (
        phase === "stopped" && reason.startsWith("the copy of notes was cut off, and no worker")
      );
    });
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await provider.drop(pair, "there");
  await provider.ensure(pair, never);
  await cells.inStep(pair);
  expect(await cells.rowsOf(annex, "acme")).toEqual(await cells.rowsOf(cells.a, "acme"));
  await provider.drop(pair, "there");
});
