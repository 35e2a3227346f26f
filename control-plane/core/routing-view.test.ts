/** What routers are told of one row: of a cell by its stage, of a service by who stands in front of it. */
import { describe, expect, test } from "vitest";
import {
  type CellRow,
  groupChanges,
  identityOf,
  type NameRow,
  type PlacementRow,
  routedCells,
} from "./routing-view.ts";

const registered = {
  default: { endpoints: ["http://10.0.0.1:3000"], health: "/up" },
  api: { endpoints: ["http://10.0.0.1:3001"] },
};
const cell = (stage: CellRow["stage"]): CellRow => ({
  ...{ id: "cell-01", region: "local", stage, host: null, halted: false, handover: false },
  services: registered,
});
const gate = (port: number, ...services: string[]) => ({
  cell: "cell-01",
  endpoint: `http://10.0.0.9:${port}`,
  services,
});
const shown = (stage: CellRow["stage"], ...agents: ReturnType<typeof gate>[]) =>
  routedCells([cell(stage)], agents)[0];

describe("a cell", () => {
  test("without agents is reached as registered, whatever its stage", () => {
    expect(shown("enforce")).toEqual({ id: "cell-01", region: "local", services: registered });
    expect(shown("observe")).toMatchObject({ stage: "observe", services: registered });
  });

  test("in pass-through is reached as registered, although it has agents", () => {
    expect(shown("pass-through", gate(1, "default"))).toEqual({
      ...{ id: "cell-01", region: "local", stage: "pass-through" },
      services: registered,
    });
  });

  test("with agents is reached through their gates alone: no service goes around them", () => {
    for (const stage of ["observe", "enforce"] as const) {
      expect(shown(stage, gate(2, "default"), gate(1, "default", "web"))?.services).toEqual({
        default: { endpoints: ["http://10.0.0.9:1", "http://10.0.0.9:2"] },
        web: { endpoints: ["http://10.0.0.9:1"] },
      });
    }
  });

  test("is the same text, in whatever order its agents called", () => {
    const agents = [gate(3, "web", "api"), gate(1, "api"), gate(2, "default")];
    const texts = [agents, agents.toReversed()].map((some) =>
      JSON.stringify(routedCells([cell("enforce")], some)),
    );
    expect(texts[0]).toBe(texts[1]);
  });
});

describe("changes", () => {
  const hash = `${"h".repeat(21)}A`;
  const name = (change: Partial<NameRow>): NameRow => ({
    ...{ namespace: "domain", hash, keyspace: "default", tenant: "acme" },
    ...{ live: true, revision: 4 },
    ...change,
  });
  const placement: PlacementRow = {
    ...{ key: "default/tenant/acme", keyspace: "default", kind: "tenant", value: "acme" },
    ...{ cell: "cell-01", epoch: 1, state: "active", deleted: false, revision: 3 },
  };

  test("of placements alone say nothing of names, as before there were any", () => {
    expect(Object.keys(groupChanges([placement]))).toEqual(["upserts", "deletes"]);
  });

  test("of names come and go by namespace and keyspace; a name of two tenants is two", () => {
    const rows = [
      name({}),
      name({ tenant: "globex" }),
      name({ keyspace: "users" }),
      name({ namespace: "email", live: false }),
    ];
    expect(new Set(rows.map(identityOf)).size).toBe(4);
    const told = groupChanges([placement, ...rows]);
    expect(told.upserts).toHaveLength(1);
    expect(told).toMatchObject({
      aliasUpserts: [
        {
          alias: "domain",
          keyspace: "default",
          names: [
            [hash, "acme"],
            [hash, "globex"],
          ],
        },
        { alias: "domain", keyspace: "users" },
      ],
      aliasDeletes: [{ alias: "email", keyspace: "default" }],
    });
  });
});
