/**
 * A cell dies under load, application and database at once: its tenants are served by its partners, with their
 * data, nobody else notices, and whatever was lost is named. Then the dead cell comes back: nothing of it counts
 * until a person has salvaged and wiped it; then its tenants go home. In between a healthy cell is emptied live.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { type DeadCellReport, deadCell } from "../outage/dead-cell.ts";
import { type FleetClient, openFleetClient } from "../outage/fleet-client.ts";

let fleet: TestFleet;
let client: FleetClient;
let found: DeadCellReport;

async function startAndKill(kind: string): Promise<void> {
  const flags = ["--no-demo", "--standby", kind];
  fleet = await startFleet({ cells: 3, standbyPartners: 2, flags });
  client = await openFleetClient(fleet);
  found = await deadCell(fleet, {
    ...{ tenants: 18, writesPerSecond: 30, victim: "cell-02", afterMs: 3000 },
    say: () => {},
  });
}

/** The error's words are worth more than its number. */
async function run(...args: string[]): Promise<void> {
  const { code, stderr } = await fleet.cli(...args);
  if (code !== 0) throw new Error(`cellctl ${args.join(" ")} ended with ${code}: ${stderr}`);
}
const cell = (id: string) => fleet.cliJson("cell", "get", id);
const mine = ["tenant-2", "tenant-5", "tenant-8"];

describe.each(["logical", "physical"])("a cell with %s standbys that is dead", (kind) => {
  beforeAll(() => startAndKill(kind));
  afterAll(async () => {
    await client?.close();
    await fleet?.stop();
  });

  test("its tenants are served by its partners with their data; others are refused nothing", async () => {
    expect(found.neverBack).toEqual([]);
    expect(found.othersRefused).toEqual([]);
    expect(found.outages.length).toBeGreaterThan(0);
    for (const tenant of mine) {
      const answer = await fleet.ask(tenant, "GET", "/whoami");
      expect(["cell-01", "cell-03"]).toContain(answer.headers["x-cell"]);
      expect(answer.json["epoch"]).toBeGreaterThanOrEqual(2);
    }
    expect(await fleet.cliJson("tenant", "locate", "tenant-2")).not.toMatchObject({
      cell: "cell-02",
    });
  });

  test("nothing acknowledged is gone that the report does not name", () => {
    expect(found.verdict.violations).toEqual([]);
    expect(found.failover.report?.totals).toMatchObject({ keys: 6, adopted: 6, unavailable: 0 });
  });

  test("adopted tenants are moved into whole cells, which have standbys", async () => {
    await until(
      "the failover is over",
      async () => (await client.failover(found.failover.id)).step === "done",
      120_000,
    );
    const adopted = (await client.standbys()).reduce((sum, { keys }) => sum + keys, 0);
    expect(adopted).toBe(0);
  });

  test("comes back without a lease, and tells so", async () => {
    await fleet.cli("cell", "start", "cell-02", "--no-wait");
    await until("its agent calls", async () => {
      const { agents, health } = await cell("cell-02");
      const isHeard = Array.isArray(agents) && agents.some((one) => Number(one.seenMs) < 5000);
      return isHeard && health !== "down";
    });
    expect(await cell("cell-02")).toMatchObject({ state: "quarantined" });
    const readmit = await fleet.cli(
      ...["cell", "readmit", "cell-02", "--confirm", "cell-02", "--reason", "it is back"],
    );
    expect(readmit.stderr).toContain("cell-02 was failed over");
    expect((await fleet.ask("tenant-2", "GET", "/whoami")).headers["x-cell"]).not.toBe("cell-02");
  });

  test("is salvaged, wiped, and its tenants go home", async () => {
    await run("cell", "salvage", "cell-02", "--yes");
    const wipe = ["cell", "wipe", "cell-02", "--yes", "--discard-unsalvaged", "--reason", "a test"];
    await run(...wipe, "--wait");
    await run("failover", "restore", "cell-02", "--yes");
    await until(
      "a tenant is at home",
      async () => (await fleet.ask("tenant-2", "GET", "/whoami")).headers["x-cell"] === "cell-02",
      120_000,
    );
    const { json } = await fleet.ask("tenant-2", "GET", "/orders");
    expect(Array.isArray(json["items"]) && json["items"].length).toBeGreaterThan(0);
  });
});
