import { expect, test } from "vitest";
import {
  defaultKeyspace,
  parseCellId,
  parseKeyspaceName,
  parseTenantId,
} from "../../contract/ids.ts";
import { trafficPolicySchema } from "../../contract/traffic-policy.ts";
import { must } from "../../runtime/assert.ts";
import { flagsOf } from "./flags.ts";

const cell = (id: string) => must(parseCellId(id), "cell id");
const tenant = (id: string, keyspace: string = defaultKeyspace) => ({
  tenant: must(parseTenantId(id), "tenant id"),
  keyspace: must(parseKeyspaceName(keyspace), "keyspace"),
});
const policy = trafficPolicySchema.parse({
  rings: { canary: ["cell-01"], late: ["cell-03"] },
  flags: {
    "new-editor": { tenants: ["acme", "users/ann"] },
    "fast-search": { cells: ["cell-02"], rings: ["canary"] },
    banner: { everywhere: true },
    nobody: {},
    "lost-ring": { rings: ["never-defined"] },
  },
});

test("a flag is on for its tenants, its cells, the cells of its rings, or everywhere", () => {
  expect(flagsOf(policy, cell("cell-01"), tenant("acme"))).toBe("banner,fast-search,new-editor");
  expect(flagsOf(policy, cell("cell-02"), tenant("globex"))).toBe("banner,fast-search");
  expect(flagsOf(policy, cell("cell-03"), tenant("globex"))).toBe("banner");
  expect(flagsOf(policy, undefined, undefined)).toBe("banner");
});

test("a tenant of another keyspace is another tenant", () => {
  expect(flagsOf(policy, cell("cell-03"), tenant("acme", "users"))).toBe("banner");
  expect(flagsOf(policy, cell("cell-03"), tenant("ann", "users"))).toBe("banner,new-editor");
  expect(flagsOf(policy, cell("cell-03"), tenant("ann"))).toBe("banner");
});

test("without flags there is nothing to say", () => {
  expect(flagsOf(undefined, cell("cell-01"), tenant("acme"))).toBe("");
  expect(flagsOf({}, cell("cell-01"), tenant("acme"))).toBe("");
  expect(flagsOf({ flags: {} }, cell("cell-01"), tenant("acme"))).toBe("");
});
