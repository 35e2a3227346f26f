/** What routers are told of the cell at each step: that requests may wait is said as long as keys change owner, and no longer. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { readLists } from "../../store/routing-lists.ts";
import { fleet as fleetRow } from "../../store/schema.ts";
import { type FailingFixture, startFailingFixture } from "./failing.fixture.ts";

let fixture: FailingFixture;
beforeAll(async () => {
  fixture = await startFailingFixture();
});
afterAll(async () => {
  await fixture.close();
});

/** As routers hear it: lists are read again when their revision has risen, and not before. */
function startListening(cell: string) {
  let seen = -1;
  let word = "";
  return async (): Promise<string> => {
    const { read, pool } = fixture.database;
    const [row] = await read.select({ config: fleetRow.configRevision }).from(fleetRow);
    if ((row?.config ?? 0) <= seen) return word;
    seen = row?.config ?? 0;
    const client = await pool.connect();
    try {
      const { cells } = await readLists(client);
      const found = cells.find(({ id }) => id === cell);
      word = (["halted", "handover"] as const).filter((one) => found?.[one] === true).join(" ");
    } finally {
      client.release();
    }
    return word;
  };
}

test("requests may wait while keys change owner: not before the old owner has stopped, nor where nobody goes on", async () => {
  const fleet = await fixture.fleet({ tenants: 12 });
  const [annex] = fleet.annexes;
  annex.onApplied = () => {
    annex.boot = "2";
    annex.onApplied = () => {};
  };
  const hear = startListening(fleet.origin);
  const told: string[] = [];
  const leading = await fixture.lead({
    patience: { canaryMs: 60 },
    onBoundary: async ({ step, when }) => {
      const word = await hear();
      if (when === "before") told.push(`${step}: ${word}`.trimEnd());
    },
  });
  const id = await fleet.begin();
  await fixture.until(id, ({ step }) => step === "halted");
  expect(await startListening(fleet.origin)()).toBe("halted");
  await fixture.wish(id, "resume");
  await fixture.until(id, ({ step }) => step === "reprotecting");
  await fixture.until(id, () => told.at(-1)?.startsWith("reprotecting") === true);
  await leading.close();
  // A step is looked at as often as it waits.
  expect(told.filter((one, at) => one !== told[at - 1])).toEqual([
    "confirmed:",
    "revoking: halted",
    "severing: halted",
    "adopting: halted handover",
    "halted: halted",
    "adopting: halted handover",
    "routing: halted handover",
    "verifying: halted",
    "reprotecting: halted",
  ]);
});
