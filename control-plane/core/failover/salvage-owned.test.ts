/** Whose rows a salvage speaks of, in keyspaces of each kind. */
import { expect, test } from "vitest";
import { keyspaceNameSchema } from "../../../contract/ids.ts";
import { slotOf } from "../../../contract/placement-key.ts";
import { type OwnedKeys, wasOwned } from "./salvage-owned.ts";

const named = (name: string, more: Partial<KnownKeyspace>): [string, KnownKeyspace] => [
  name,
  {
    ...{ id: keyspaceNameSchema.parse(name), strategy: "directory" },
    ...{ slotCount: null, ranges: [], ...more },
  },
];
type KnownKeyspace = OwnedKeys["keyspaces"] extends ReadonlyMap<string, infer One> ? One : never;

const keys = (owned: readonly string[], more: Partial<OwnedKeys> = {}): OwnedKeys => ({
  owned: new Map(owned.map((key) => [key, []])),
  ...{ apart: new Set(), purged: new Set() },
  keyspaces: new Map([
    named("default", {}),
    named("users", { strategy: "slots", slotCount: 16 }),
    named("logs", { strategy: "range", ranges: ["", "m"] }),
  ]),
  ...more,
});
const change = (keyspace: string, tenant: string, lsn = "0/100") => ({
  ...{ store: "main", keyspace, tenant, lsn },
});

test("in a directory a tenant's own key counts, of this keyspace", () => {
  const owned = keys(["default/tenant/acme"]);
  expect(wasOwned(owned, change("default", "acme"))).toBe(true);
  expect(wasOwned(owned, change("default", "globex"))).toBe(false);
  expect(wasOwned(owned, change("users", "acme"))).toBe(false);
});

test("tables of everybody, and rows of no tenant, are told as before", () => {
  expect(wasOwned(keys([]), change("", ""))).toBe(true);
  expect(wasOwned(keys([]), change("default", ""))).toBe(true);
});

test("a slot, and a range from its start to the next, count for all tenants in them", () => {
  const owned = keys([`users/slot/${slotOf("acme", 16)}`, "logs/range/m"]);
  expect(wasOwned(owned, change("users", "acme"))).toBe(true);
  expect(wasOwned(owned, change("logs", "milk"))).toBe(true);
  expect(wasOwned(owned, change("logs", "lime"))).toBe(false);
});

test("a tenant above its slot goes by its own key when a move ever touched it here", () => {
  const slot = `users/slot/${slotOf("acme", 16)}`;
  const apart = new Set(["users/tenant/acme"]);
  expect(wasOwned(keys([slot], { apart }), change("users", "acme"))).toBe(false);
  expect(wasOwned(keys([slot, "users/tenant/acme"], { apart }), change("users", "acme"))).toBe(
    true,
  );
});

test("of a tenant that was deleted since, nothing is told", () => {
  const purged = new Set(["default/tenant/acme"]);
  expect(wasOwned(keys(["default/tenant/acme"], { purged }), change("default", "acme"))).toBe(
    false,
  );
});

test("of a key that was taken back, what the copy there lacks is told: store by store, all where nobody knows", () => {
  const at = (...stores: readonly { name: string; remoteLsn: string | null }[]) =>
    keys([], { owned: new Map([["default/tenant/acme", stores]]) });
  const one = at({ name: "default", remoteLsn: "0/200" });
  expect(wasOwned(one, change("default", "acme", "0/1FF"))).toBe(false);
  expect(wasOwned(one, change("default", "acme", "0/200"))).toBe(true);
  const two = at({ name: "main", remoteLsn: "0/50" }, { name: "other", remoteLsn: "0/200" });
  expect(wasOwned(two, change("default", "acme"))).toBe(true);
  expect(wasOwned(two, { ...change("default", "acme"), store: "other" })).toBe(false);
  expect(wasOwned(at(), change("default", "acme"))).toBe(true);
});
