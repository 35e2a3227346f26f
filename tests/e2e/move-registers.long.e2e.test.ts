/**
 * A tenant moves to and fro while customers change its registers by compare and set, look at them, order and
 * list their orders. To all of them together it is one register and one list (rules 4 and 5 of the checker):
 * no answer is older than what anybody had been told before it was asked.
 */
import { resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkHistory } from "../../history/check.ts";
import type { Entry } from "../../history/model.ts";
import { createRecorder } from "../../history/recorder.ts";
import { startWorkload, type Workload } from "../../history/workload.ts";
import { systemClock } from "../../runtime/clock.ts";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { type MoveClient, openMoveClient } from "../moves/move-client.ts";

const app = resolve(import.meta.dirname, "..", "register-app", "cellfleet.yaml");
const tenant = "pendulum";
const tenants = [tenant];
const run = "swing";
/** Answers of each kind between two moves, so that no cell is left unasked. */
const answersPerStay = 12;

let fleet: TestFleet;
let moves: MoveClient | undefined;
let workload: Workload | undefined;
const entries: Entry[] = [];

beforeAll(async () => {
  fleet = await startFleet({ cells: 2, flags: ["--no-demo"], app });
  await fleet.cliJson("tenant", "create", tenant, "--cell", "cell-01", "--wait");
  moves = await openMoveClient(fleet);
});
afterAll(async () => {
  await workload?.close();
  await moves?.close();
  await fleet?.stop();
});

test("registers and lists stay one, whichever cell answers", async () => {
  const router = new URL((await fleet.endpoints()).router).origin;
  const write = (entry: Entry) => void entries.push(entry);
  workload = startWorkload({
    ...{ router: () => router, tenants, run, clock: systemClock, requestTimeoutMs: 10_000 },
    ...{ processesPerTenant: 2, ordersPerSecondMax: 20, attemptsMax: 3 },
    recorder: createRecorder({ clock: systemClock, run, write }),
    more: [
      // Slow enough that a register outlives a move away and back.
      { kind: "registers", tenants, processesPerTenant: 4, perSecondMax: 8 },
      { kind: "lists", tenants, processesPerTenant: 2, perSecondMax: 20 },
    ],
  });
  const told = (cell: string, kind: "ok" | "listed" | "found") =>
    entries.filter((one) => one.kind === kind && one.cell === cell).length;
  const staysIn = async (cell: string) => {
    for (const kind of ["ok", "listed", "found"] as const) {
      const before = told(cell, kind);
      await until(`${cell} answers (${kind})`, () => told(cell, kind) >= before + answersPerStay);
    }
  };

  await staysIn("cell-01");
  for (const to of ["cell-02", "cell-01", "cell-02", "cell-01"]) {
    // What is shown here is what a pause may do, not how long it is on a busy machine.
    const how = { switch: "auto", soakMs: 0, pauseBudgetMs: 4000, switchTriesMax: 20 } as const;
    const move = await moves?.start(tenants, to, how);
    expect(await moves?.reaches(move?.id ?? "", "done")).toMatchObject({ target: to });
    await staysIn(to);
  }
  await workload.stop();
  await workload.readBack(60_000);

  const { violations, counts } = checkHistory(entries);
  expect(violations).toEqual([]);
  expect(counts).toMatchObject({ failed: 0, unknown: 0, present: counts.acknowledged });
  // Five stays of all three kinds: this verdict is about something.
  for (const seen of [counts.acknowledged, counts.lists, counts.registers]) {
    expect(seen).toBeGreaterThanOrEqual(5 * answersPerStay);
  }
  const swapped = entries.filter((one) => one.kind === "swap").length;
  expect(swapped).toBeGreaterThanOrEqual(3 * answersPerStay);
});
