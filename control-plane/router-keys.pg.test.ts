/** Routers' public keys: announced by their owners, named by the next table, gone with a router that is. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { AnnouncedKey } from "../contract/router-key.ts";
import { snapshotHeadSchema } from "../contract/routing-table.ts";
import { generateKey, keyIdOf } from "../runtime/signing.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { type ControlFixture, callRouter, eventually, startControl } from "./control.fixture.ts";
import { retireRouterKeys } from "./store/router-record.ts";

let postgres: TestPostgres;
let control: ControlFixture;
beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("router_keys"));
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

function makeKey(): AnnouncedKey {
  const spki = generateKey("key").publicKeys.keys[0]?.spki ?? "";
  return { id: keyIdOf(spki), spki };
}

async function head() {
  const response = await fetch(`${control.origin}/v1/machine/routing-table`, {
    headers: { authorization: `Bearer ${await control.token("router", "router-1")}` },
  });
  const [line = ""] = (await response.text()).split("\n");
  return snapshotHeadSchema.parse(JSON.parse(line));
}
const named = async () =>
  ((await head()).routerKeys ?? []).map(({ router, id }) => `${router} ${id}`).sort();
const eventuallyNamed = (wanted: readonly string[]) =>
  eventually(
    named,
    (found) => found.join() === wanted.toSorted((x, y) => Number(x > y) - Number(x < y)).join(),
  );

test("what a router announces the next table names, once", async () => {
  const first = await control.client("router", "router-1");
  const second = await control.client("router", "router-2");
  const [a, b, next] = [makeKey(), makeKey(), makeKey()];
  await callRouter(first, "router-1", { keys: [a] });
  await callRouter(second, "router-2", { keys: [b] });
  await eventuallyNamed([`router-1 ${a.id}`, `router-2 ${b.id}`]);
  const { revision } = await head();
  for (let nth = 0; nth < 3; nth += 1) {
    await callRouter(first, "router-1", { keys: [a], revision: nth % 2 });
  }
  expect((await head()).revision).toBe(revision);
  // Two are valid while one is exchanged.
  await callRouter(first, "router-1", { keys: [next, a] });
  await eventuallyNamed([`router-1 ${next.id}`, `router-1 ${a.id}`, `router-2 ${b.id}`]);
  await callRouter(first, "router-1", { keys: [next] });
  await eventuallyNamed([`router-1 ${next.id}`, `router-2 ${b.id}`]);
  // A router from before there were keys says nothing of them.
  await callRouter(first, "router-1");
  await eventuallyNamed([`router-1 ${next.id}`, `router-2 ${b.id}`]);
});

test("nobody speaks for another router, or announces what is no key under its own hash", async () => {
  const router = await control.client("router", "router-1");
  const agent = await control.client("agent", "cell-01");
  const before = await named();
  const key = makeKey();
  const bad = [
    () => callRouter(router, "router-2", { keys: [key] }),
    () => callRouter(agent, "router-1", { keys: [key] }),
    () => callRouter(router, "router-1", { keys: [{ ...key, id: makeKey().id }] }),
    () => callRouter(router, "router-1", { keys: [{ ...key, spki: "AAAA" }] }),
    () => callRouter(router, "router-1", { keys: [key, makeKey(), makeKey()] }),
  ];
  for (const call of bad) await expect(call()).rejects.toThrow();
  expect(await named()).toEqual(before);
});

test("the keys of a router that was silent for a week go, and come back with it", async () => {
  const router = await control.client("router", "router-3");
  const key = makeKey();
  await callRouter(router, "router-3", { keys: [key] });
  const wanted = [...(await named()).filter((one) => !one.startsWith("router-3"))];
  await eventuallyNamed([...wanted, `router-3 ${key.id}`]);
  expect(await control.database.transaction(retireRouterKeys)).toEqual([]);
  await control.database.read.execute(sql`
    update cellfleet_control.router set seen_at = now() - interval '8 days' where id = 'router-3'`);
  expect(await control.database.transaction(retireRouterKeys)).toEqual(["router-3"]);
  await eventuallyNamed(wanted);
  await eventually(
    async () => {
      await callRouter(router, "router-3", { keys: [key] });
      return named();
    },
    (found) => found.includes(`router-3 ${key.id}`),
  );
});
