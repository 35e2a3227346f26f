/** A failure touches only its share of tenants: one cell is killed while all are under load. */
import { afterAll, beforeAll, describe, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";

let fleet: TestFleet;
const tenants = Array.from({ length: 12 }, (_, index) => `blast-${index}`);
const homes = new Map<string, string>();

beforeAll(async () => {
  fleet = await startFleet();
  for (const id of tenants) {
    const cell = `cell-0${(tenants.indexOf(id) % 3) + 1}`;
    await fleet.cliJson("tenant", "create", id, "--cell", cell, "--wait");
    homes.set(id, cell);
  }
});
afterAll(() => fleet?.stop());

async function health(cell: string): Promise<unknown> {
  return (await fleet.cliJson("cell", "get", cell))["health"];
}

describe("a cell that dies", () => {
  test("costs its own tenants a typed 503 and nobody else anything", async ({ expect }) => {
    const trouble: string[] = [];
    const seen = { others: 0 };
    const over = new AbortController();
    const load = tenants
      .filter((tenant) => homes.get(tenant) !== "cell-02")
      .map(async (tenant) => {
        while (!over.signal.aborted) {
          const answer = await fleet.ask(tenant, "POST", "/orders", {
            item: "steady",
            quantity: 1,
          });
          if (answer.status !== 201) trouble.push(`${tenant}: ${answer.status} ${answer.text}`);
          seen.others += 1;
        }
      });
    await until("traffic flows", () => seen.others > 50);

    await fleet.cliJson("cell", "kill", "cell-02", "--yes");
    const victim = tenants.find((tenant) => homes.get(tenant) === "cell-02") ?? "";
    const answer = await fleet.ask(victim, "GET", "/orders");
    expect([answer.status, answer.headers["x-cellfleet-error"]]).toEqual([503, "CELL_UNREACHABLE"]);
    expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0);

    await until(
      "the control plane reports it down",
      async () => (await health("cell-02")) === "down",
    );
    const before = seen.others;
    await until("traffic still flows", () => seen.others > before + 50);
    over.abort();
    await Promise.all(load);
    expect(trouble).toEqual([]);
  });

  test("stays dead until somebody starts it, and comes back with its data", async ({ expect }) => {
    expect(await health("cell-02")).toBe("down");
    await fleet.cliJson("cell", "start", "cell-02", "--wait");
    const victim = tenants.find((tenant) => homes.get(tenant) === "cell-02") ?? "";
    await until(
      "it serves again",
      async () => (await fleet.ask(victim, "GET", "/orders")).status === 200,
    );
    const made = await fleet.ask(victim, "POST", "/orders", { item: "after", quantity: 1 });
    expect(made.status).toBe(201);
  });

  test("a fourth cell starts on demand and takes tenants", async ({ expect }) => {
    await fleet.cliJson("cell", "create", "cell-04", "--wait");
    await fleet.cliJson("tenant", "create", "newcomer", "--cell", "cell-04", "--wait");
    const who = await fleet.ask("newcomer", "GET", "/whoami");
    expect(who.json).toMatchObject({ cell: "cell-04", tenant: "newcomer" });
  });
});
