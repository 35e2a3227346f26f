/** Static stability: traffic does not notice that the control plane is gone, a router starts without it. */
import { afterAll, beforeAll, describe, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";

let fleet: TestFleet;
const tenants = Array.from({ length: 9 }, (_, index) => `calm-${index}`);

beforeAll(async () => {
  fleet = await startFleet();
  for (const id of tenants) await fleet.cliJson("tenant", "create", id, "--wait");
});
afterAll(() => fleet?.stop());

describe("without a control plane", () => {
  test("routed traffic sees no error while it is killed, and ids still do not collide", async ({
    expect,
  }) => {
    const trouble: string[] = [];
    const ids = new Map<string, string>();
    const over = new AbortController();
    const load = tenants.map(async (tenant) => {
      while (!over.signal.aborted) {
        const answer = await fleet.ask(tenant, "POST", "/orders", { item: "calm", quantity: 1 });
        const id = String(answer.json["id"]);
        if (answer.status !== 201) trouble.push(`${tenant}: ${answer.status} ${answer.text}`);
        else if (ids.has(id)) trouble.push(`id ${id} given to ${tenant} and ${ids.get(id)}`);
        else ids.set(id, tenant);
      }
    });
    await until("traffic flows", () => ids.size > 50);
    expect((await fleet.cli("dev", "kill", "control-plane")).code).toBe(0);
    const before = ids.size;
    await until("traffic still flows", () => ids.size > before + 200);
    over.abort();
    await Promise.all(load);
    expect(trouble).toEqual([]);
    const refused = await fleet.cli("tenant", "create", "too-early");
    expect(refused.code).toBe(69);
  });

  test("a router that is killed and started again serves from its disk", async ({ expect }) => {
    expect((await fleet.cli("dev", "kill", "router-01")).code).toBe(0);
    expect((await fleet.cli("dev", "start", "router-01")).code).toBe(0);
    await until("it serves", async () => {
      try {
        return (await fleet.ask("calm-0", "GET", "/whoami")).status === 200;
      } catch {
        return false; // Not listening yet.
      }
    });
    for (const tenant of tenants) {
      expect((await fleet.ask(tenant, "GET", "/orders")).status).toBe(200);
    }
  });

  test("when it returns, changes flow again", async ({ expect }) => {
    expect((await fleet.cli("dev", "start", "control-plane")).code).toBe(0);
    await until("it answers", async () => (await fleet.cli("status")).code === 0);
    await fleet.cliJson("tenant", "create", "afterwards", "--wait");
    expect((await fleet.ask("afterwards", "GET", "/whoami")).json).toMatchObject({
      tenant: "afterwards",
    });
  });
});
