/** Everything stops, in order or all at once, and comes back on the same folder with all its data. */
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";

let fleet: TestFleet;
const acknowledged = new Map<string, Set<number>>();

beforeAll(async () => {
  fleet = await startFleet();
});
afterAll(() => fleet?.stop());

async function order(tenant: string, item: string): Promise<void> {
  const answer = await fleet.ask(tenant, "POST", "/orders", { item, quantity: 1 });
  if (answer.status !== 201) throw new Error(`${tenant}: ${answer.status} ${answer.text}`);
  const ids = acknowledged.get(tenant) ?? new Set();
  acknowledged.set(tenant, ids.add(Number(answer.json["id"])));
}

async function missing(): Promise<string[]> {
  const lost: string[] = [];
  for (const [tenant, ids] of acknowledged) {
    const there = new Set<number>();
    let next: string | null = "/orders?limit=100";
    while (next !== null) {
      const page = await fleet.ask(tenant, "GET", next);
      if (page.status !== 200) throw new Error(`${tenant}: ${page.status} ${page.text}`);
      for (const { id } of page.json["items"] as Array<{ id: number }>) there.add(id);
      next = page.json["next"] as string | null;
    }
    for (const id of ids) if (!there.has(id)) lost.push(`${tenant}/${id}`);
  }
  return lost;
}

describe("a fleet on the same folder", () => {
  test("comes back after an orderly stop, the cell created later included", async ({ expect }) => {
    await fleet.cliJson("cell", "create", "cell-04", "--wait");
    await fleet.cliJson("tenant", "create", "late", "--cell", "cell-04", "--wait");
    for (const tenant of ["acme", "globex", "late"]) await order(tenant, "before the stop");
    await fleet.shutDown();
    await fleet.start();
    expect(await missing()).toEqual([]);
    expect((await fleet.ask("late", "GET", "/whoami")).json).toMatchObject({ cell: "cell-04" });
  });

  // What happens to orders under way then is judged by history: nothing-lost.e2e.test.ts.
  test("comes back after everything was killed at once", async ({ expect }) => {
    await fleet.killEverything();
    await fleet.start();
    expect(await missing()).toEqual([]);
    expect((await fleet.cliJson("audit", "verify"))["ok"]).toBe(true);
  });

  test("recovers when the control plane's database is set back to an older copy", async ({
    expect,
  }) => {
    await fleet.shutDown();
    const database = join(fleet.dataDir, "control-plane", "postgres");
    const copy = join(fleet.dataDir, "older-copy");
    await cp(database, copy, { recursive: true, preserveTimestamps: true });
    await fleet.start();
    for (const tenant of ["made-after", "made-later"]) {
      await fleet.cliJson("tenant", "create", tenant, "--wait");
      await order(tenant, "not in the old copy");
    }
    const revisionBefore = Number((await fleet.cliJson("status"))["revision"]);
    await fleet.shutDown();
    await rm(database, { recursive: true });
    await cp(copy, database, { recursive: true, preserveTimestamps: true });
    await rm(copy, { recursive: true });

    await fleet.start();
    await until("the control plane has reconciled", async () => {
      const status = await fleet.cliJson("status");
      return status["mode"] === "normal" && Number(status["revision"]) > revisionBefore;
    });
    expect(await missing()).toEqual([]);
    const events = await fleet.cliJson("events");
    expect(JSON.stringify(events)).toContain("recover");
    // New tenants are placed, served, and collide with nobody.
    await fleet.cliJson("tenant", "create", "after-recovery", "--wait");
    await order("after-recovery", "new life");
  });
});
