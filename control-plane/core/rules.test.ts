import { describe, expect, test } from "vitest";
import { cellActions, cellStates } from "../../contract/control-api.ts";
import { actionStates, cellTransitions, insteadOf, mayBecome } from "./cell-state.ts";
import { didYouMean, editDistance } from "./did-you-mean.ts";
import { explainPlacement } from "./explain.ts";
import { aCell, aStage } from "./fleet.fixture.ts";
import { namesIn, nameTenant } from "./resolve.ts";
import { checkOwnsNothing, checkSafety, leavingCells } from "./safety.ts";

describe("the states of a cell", () => {
  test("drawn", () => {
    const drawn = cellStates.map((state) => `${state} -> ${cellTransitions[state].join(", ")}`);
    expect(`\n${drawn.join("\n")}\n`).toMatchInlineSnapshot(`
      "
      provisioning -> active, retired
      active -> cordoned, draining, quarantined, retired
      cordoned -> active, draining, quarantined, retired
      draining -> active, cordoned, quarantined, retired
      quarantined -> cordoned, retired
      retired -> 
      "
    `);
  });
  test("a retired cell stays retired, whatever is asked", () => {
    for (const to of cellStates) expect(mayBecome("retired", to)).toBe(to === "retired");
    for (const action of cellActions) expect(actionStates[action]).not.toContain("retired");
  });
  test("every refusal of an action has a next step", () => {
    for (const action of cellActions) {
      for (const state of cellStates) {
        expect(insteadOf(action, "cell-01", state).length).toBeGreaterThan(0);
      }
    }
  });
});

describe("safety rules", () => {
  const [one, two] = [aCell("cell-01"), aCell("cell-02")];
  test("the last healthy cell is not killed, the last open one not cordoned", () => {
    expect(checkSafety("kill", one, [one, two])).toBeUndefined();
    expect(checkSafety("kill", one, [one])?.rule).toBe("healthy-cells");
    const sick = aCell("cell-02", { health: "down" });
    expect(checkSafety("stop", one, [one, sick])?.rule).toBe("healthy-cells");
    const closed = aCell("cell-02", { state: "cordoned" });
    expect(checkSafety("cordon", one, [one, closed])?.rule).toBe("open-cells");
    expect(checkSafety("kill", one, [one, closed])).toBeUndefined();
  });
  test("of two cells only one may be killed at the same time, and it is the first one asked for", () => {
    const ops = [
      { id: "op_1", kind: "cell.kill", object: "cell-01" },
      { id: "op_2", kind: "cell.kill", object: "cell-02" },
      { id: "op_3", kind: "tenant.create", object: "cell-02" },
    ];
    expect(checkSafety("kill", one, [one, two], leavingCells(ops, "op_1"))).toBeUndefined();
    expect(checkSafety("kill", two, [one, two], leavingCells(ops, "op_2"))?.rule).toBe(
      "healthy-cells",
    );
    expect(checkSafety("stop", one, [one, two], leavingCells(ops))?.rule).toBe("healthy-cells");
  });
  test("a cell that is down may be stopped, though it is the last", () => {
    expect(checkSafety("stop", aCell("cell-01", { health: "down" }), [])).toBeUndefined();
  });
  test("starting and uncordoning take nothing away", () => {
    expect(checkSafety("start", one, [one])).toBeUndefined();
    expect(checkSafety("uncordon", one, [one])).toBeUndefined();
  });
  test("only an empty cell is destroyed", () => {
    expect(checkOwnsNothing(aCell("cell-01"), { keys: 0, tenants: 0 })).toBeUndefined();
    expect(checkOwnsNothing(aCell("cell-01"), { keys: 1, tenants: 0 })?.text).toContain(
      "1 placements",
    );
    expect(checkOwnsNothing(aCell("cell-01"), { keys: 0, tenants: 1 })?.rule).toBe("owns-nothing");
    // The way back of an adoption: its database is not ours to miss.
    const back = (applied: "enforce" | "pass-through") =>
      aCell("cell-01", { stage: aStage({ adopted: true, now: "pass-through", applied }) });
    const owned = { keys: 1, tenants: 1 };
    expect(checkOwnsNothing(back("pass-through"), owned)).toBeUndefined();
    // Left alone in enforce it would refuse its application everything.
    expect(checkOwnsNothing(back("enforce"), owned)?.rule).toBe("database-enforces");
    expect(checkOwnsNothing(back("enforce"), owned, true)).toBeUndefined();
  });
});

describe("did you mean", () => {
  test("finds what is near, and nothing else", () => {
    expect(didYouMean("cell-0", ["cell-01", "cell-02", "edge-77"])).toEqual(["cell-01", "cell-02"]);
    expect(didYouMean("zzzzzz", ["cell-01"])).toEqual([]);
    expect(didYouMean("ACME", ["acme"])).toEqual(["acme"]);
  });
  test.each([
    ["", "", 0],
    ["abc", "", 3],
    ["kitten", "sitting", 3],
    ["ab", "ba", 2],
  ])("%s and %s are %i apart", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
    expect(editDistance(b, a)).toBe(distance);
  });
});

describe("explanations", () => {
  const wanted = {
    tenant: "acme",
    tier: "standard" as const,
    region: null,
    bytes: 100,
    rps: 0,
    cell: null,
  };
  test("of a tenant that does not exist: where it would go, and what stands against each cell", () => {
    const told = explainPlacement({
      tenant: "acme",
      keyspace: "default",
      current: null,
      container: false,
      wanted,
      cells: [aCell("cell-01", { state: "cordoned" }), aCell("cell-02")],
    });
    expect(told.decision).toBe("place");
    expect(told.candidates.map(({ cell, decision }) => `${cell} ${decision}`)).toEqual([
      "cell-02 yes",
      "cell-01 no",
    ]);
    expect(told.would_change_if).toEqual(["cell-01 were active (cellctl cell uncordon cell-01)"]);
  });
  test("a tenant's own weight does not count against the cell it is in", () => {
    const full = aCell("cell-01", { usage: { tenants: 100, bytes: 1_000_000, rps: 0 } });
    const current = {
      key: "default/tenant/acme",
      cell: "cell-01",
      epoch: 1,
      state: "active" as const,
      revision: 4,
      deleted: false,
    };
    const told = explainPlacement({
      tenant: "acme",
      keyspace: "default",
      current,
      container: false,
      wanted,
      cells: [full],
    });
    expect(told).toMatchObject({ decision: "stay", candidates: [{ decision: "yes" }] });
  });
});

describe("naming the tenant of a request", () => {
  const sources = [
    { header: "x-tenant-id" },
    { host: "{tenant}.example.com" },
    { path: "/t/{tenant}/", keyspace: "users" as never },
    { query: "tenant" },
  ];
  const name = (host: string | undefined, path: string | undefined) => {
    const { tenant, keyspace } = nameTenant(
      { tenant: undefined, keyspace: undefined, host, path },
      sources,
      () => [],
    );
    return { tenant, keyspace };
  };
  test.each([
    ["Acme.Example.com:8080", undefined, { tenant: "acme", keyspace: undefined }],
    ["example.com", undefined, { tenant: undefined, keyspace: undefined }],
    [undefined, "/t/globex/orders", { tenant: "globex", keyspace: "users" }],
    [undefined, "/t/%zz/x", { tenant: undefined, keyspace: undefined }],
    [undefined, "/x?tenant=umbrella", { tenant: "umbrella", keyspace: undefined }],
  ])("%s %s", (host, path, expected) => {
    expect(name(host, path)).toEqual(expected);
  });

  test("by a name: nobody's counts as absent, several tenants' leaves it to the next source", () => {
    const named = [
      { host: "{tenant}", alias: "domain" },
      { query: "key", alias: "api-key" },
      { path: "/t/{tenant}/" },
    ];
    const owners: Readonly<Record<string, readonly { tenant: string; keyspace: string }[]>> = {
      "domain:shop.example": [{ tenant: "acme", keyspace: "default" }],
      "api-key:both": [
        { tenant: "globex", keyspace: "users" },
        { tenant: "acme", keyspace: "default" },
      ],
    };
    const ask = (host: string, path: string) => {
      const question = { tenant: undefined, keyspace: undefined, host, path };
      const asked = namesIn(question, named);
      expect(asked).toContainEqual({ namespace: "domain", name: host.toLowerCase() });
      const { trace, ...answer } = nameTenant(
        question,
        named,
        ({ namespace, name }) => owners[`${namespace}:${name}`] ?? [],
      );
      expect(trace.length).toBeGreaterThan(0);
      return answer;
    };
    expect(ask("Shop.example", "/")).toEqual({
      tenant: "acme",
      keyspace: "default",
      ambiguous: [],
    });
    expect(ask("other.example", "/t/initech/x").tenant).toBe("initech");
    expect(ask("other.example", "/?key=both")).toMatchObject({
      tenant: undefined,
      ambiguous: ["globex", "acme"],
    });
    expect(ask("other.example", "/t/acme/x?key=both").tenant).toBe("acme");
  });
});
