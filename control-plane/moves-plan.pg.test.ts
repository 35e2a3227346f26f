/** Plans of moves, and who cannot be moved: the real API, with a preflight that sees what it is told to. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import {
  callsOf,
  type MovesApi,
  refusal,
  resetMoves,
  seen,
  startMovesApi,
  tenants,
} from "./moves.fixture.ts";
import { codeOf } from "./plane.fixture.ts";

let api: MovesApi;
beforeAll(async () => {
  api = await startMovesApi();
});
afterAll(async () => {
  await api?.close();
});
beforeEach(() => resetMoves(api));

describe("a plan", () => {
  test("tells what stands against it, what it costs and what will be done, and changes nothing", async () => {
    const before = await api.count("audit");
    const { items, skipped } = await api.plan({ tenants: ["acme"], to: "cell-02" });
    expect(api.looks.asked).toEqual([
      { keyspace: "default", keys: ["default/tenant/acme"], source: "cell-01", target: "cell-02" },
    ]);
    expect(items).toMatchObject([
      {
        keyspace: "default",
        source: "cell-01",
        target: "cell-02",
        tables: seen.tables,
        estimate: seen.estimate,
      },
    ]);
    const verdicts = items[0]?.checks.map(({ id, cell, verdict }) => `${id} ${cell} ${verdict}`);
    expect(verdicts).toEqual([
      "cell cell-01 ok",
      "cell cell-02 ok",
      "placement cell-02 ok",
      "schema cell-02 ok",
    ]);
    expect(items[0]?.steps.map(({ step }) => step)).toContain("draining");
    expect(skipped).toEqual([]);
    expect([await api.count("move"), await api.count("op"), await api.count("audit")]).toEqual([
      0,
      0,
      before,
    ]);
  });

  test("shows a target that may not take them, and a source that does not enforce, as verdicts", async () => {
    await api.run(`update cellfleet_control.cell set state = 'cordoned' where id = 'cell-02'`);
    await api.run(`update cellfleet_control.cell set health = 'down' where id = 'cell-01'`);
    const { items } = await api.plan({ tenants: ["acme"], to: "cell-02" });
    const refused = items[0]?.checks.filter(({ verdict }) => verdict === "refused");
    expect(refused?.map(({ id, fix }) => [id, fix])).toEqual([
      ["health", "cellctl cell get cell-01"],
      ["placement", "cellctl cell uncordon cell-02"],
    ]);
  });

  test.each([
    ["state = 'cordoned'", "cellctl cell uncordon cell-02"],
    ["health = 'down'", "cellctl cell get cell-02"],
    ["capacity_tenants = 0", "cellctl explain placement acme"],
  ])("and its beginning refuse a target with %s by one code, with one fix", async (set, fix) => {
    await api.run(`update cellfleet_control.cell set ${set} where id = 'cell-02'`);
    const body = { tenants: ["acme"], to: "cell-02" };
    const checks = (await api.plan(body)).items[0]?.checks;
    const bad = checks?.filter(({ verdict }) => verdict === "refused");
    expect(bad).toMatchObject([{ id: "placement", code: "CAPACITY_EXHAUSTED", fix }]);
    const refused = await refusal(api.start(body));
    expect([refused.code, refused.nextSteps[0]]).toEqual(["CAPACITY_EXHAUSTED", fix]);
  });

  test("of many is in groups of the same cell that move together; who is there already is skipped", async () => {
    await api.run(
      `update cellfleet_control.placement set cell = 'cell-03', epoch = epoch + 1 where value in ('globex', 'hooli')`,
    );
    await api.run(
      `update cellfleet_control.placement set cell = 'cell-02', epoch = epoch + 1 where value = 'wonka'`,
    );
    const { items, skipped } = await api.plan({ tenants, to: "cell-02", together: 2 });
    const names = items.map(({ source, keys }) => [
      source,
      ...keys.map((key) => key.split("/")[2]),
    ]);
    expect(names).toEqual([
      ["cell-01", "acme", "initech"],
      ["cell-01", "umbrella"],
      ["cell-03", "globex", "hooli"],
    ]);
    expect(skipped).toEqual([
      { object: "default/tenant/wonka", reason: "there-already", text: "is in cell-02 already" },
    ]);
  });

  test("by labels: tier and region are the tenant's own, and --from leaves the others out", async () => {
    await api.run(
      `update cellfleet_control.placement set cell = 'cell-03', epoch = epoch + 1 where value = 'wonka'`,
    );
    const of = async (more: object) =>
      (await api.plan({ to: "cell-02", together: 100, ...more })).items.flatMap(({ keys }) => keys);
    expect(await of({ selector: "tier=gold" })).toEqual([
      "default/tenant/hooli",
      "default/tenant/wonka",
    ]);
    expect(await of({ selector: "tier=gold,team=a", from: "cell-03" })).toEqual([
      "default/tenant/wonka",
    ]);
    expect(await codeOf(of({ selector: "team=b" }))).toBe("NOT_FOUND");
    expect(await codeOf(of({ selector: "gold" }))).toBe("VALIDATION_FAILED");
    expect(await codeOf(of({}))).toBe("VALIDATION_FAILED");
  });

  test("by labels leaves out who is moving already; named, all of them are told", async () => {
    const { id } = await api.begin("hooli", "acme");
    const { items, skipped } = await api.plan({ selector: "tier=gold", to: "cell-03" });
    expect(items.map(({ keys }) => keys)).toEqual([["default/tenant/wonka"]]);
    expect(skipped).toMatchObject([{ object: "default/tenant/hooli", reason: "in-motion" }]);
    const named = await refusal(api.plan({ tenants: ["acme", "hooli", "wonka"], to: "cell-03" }));
    expect([named.code, named.details["keys"]]).toEqual([
      "KEY_IN_MOTION",
      ["default/tenant/acme", "default/tenant/hooli"],
    ]);
    expect(named.nextSteps).toContain(`cellctl move show ${id}`);
  });

  test("says which cells could not be looked at in time, or do not answer", async () => {
    api.looks.look = async () => {
      throw new CellError("CELL_DATABASE_UNREACHABLE", "cell-02: nobody answers.", {
        nextSteps: ["x"],
      });
    };
    const { items } = await api.plan({ tenants: ["acme"], to: "cell-02" });
    expect(items[0]?.checks.at(-1)).toMatchObject({
      verdict: "refused",
      text: "cell-02: nobody answers.",
    });
    expect(await codeOf(api.start({ tenants: ["acme"], to: "cell-02" }))).toBe("MOVE_UNFIT");
  });
});

describe("who cannot be moved is told why", () => {
  test("unknown cells, tenants and keys", async () => {
    expect(await codeOf(api.plan({ tenants: ["acme"], to: "cell-77" }))).toBe("CELL_UNKNOWN");
    expect(await codeOf(api.plan({ tenants: ["acme"], to: "cell-02", from: "cell-77" }))).toBe(
      "CELL_UNKNOWN",
    );
    const unknown = await refusal(api.plan({ tenants: ["acme", "acmee"], to: "cell-02" }));
    expect(unknown.code).toBe("TENANT_UNKNOWN");
    expect(unknown.nextSteps).toContain("Did you mean acme?");
    expect(await codeOf(api.plan({ keys: ["users/slot/9"], to: "cell-02" }))).toBe("NOT_FOUND");
    expect(await codeOf(api.plan({ keys: ["nonsense"], to: "cell-02" }))).toBe("VALIDATION_FAILED");
    expect(await codeOf(api.move("op_nothing0000"))).toBe("MOVE_UNKNOWN");
    expect(await codeOf(api.act("op_nothing0000", "cancel"))).toBe("MOVE_UNKNOWN");
  });

  test("a tenant under a container: with both ways out; the container itself moves", async () => {
    const under = await refusal(api.start({ tenants: ["ann"], to: "cell-02" }));
    expect(under.code).toBe("STATE_CONFLICT");
    const container = String(under.details["container"]);
    expect(under.nextSteps).toEqual([
      `cellctl move plan --key ${container} --to CELL`,
      "cellctl route override add ann --keyspace users --cell cell-01   (then move it)",
    ]);
    const { items } = await api.start({ keys: [container], to: "cell-02" });
    expect(items).toMatchObject([{ keyspace: "users", keys: [container] }]);
    expect(await api.usage("cell-02")).toBe(1);
  });

  test("where it is already, and in which state it cannot go", async () => {
    const there = await refusal(api.start({ tenants: ["acme"], to: "cell-01" }));
    expect(there.code).toBe("STATE_CONFLICT");
    expect(there.message).toContain("is in cell-01 already");
    await api.run(
      `update cellfleet_control.placement set state = 'suspended' where value = 'acme'`,
    );
    expect((await refusal(api.plan({ tenants: ["acme"], to: "cell-02" }))).nextSteps).toEqual([
      "cellctl tenant resume acme",
    ]);
  });

  test("by a target without room, one of them names who does not fit", async () => {
    await api.run(`update cellfleet_control.cell set capacity_tenants = 2 where id = 'cell-02'`);
    const full = await refusal(api.start({ tenants: ["acme", "globex", "hooli"], to: "cell-02" }));
    expect(full.code).toBe("CAPACITY_EXHAUSTED");
    expect(full.message).toContain("hooli");
    expect(full.nextSteps[0]).toBe("cellctl explain placement hooli");
    expect([await api.count("move"), await api.usage("cell-02")]).toEqual([0, 0]);
  });

  test("by safety: recovering, a cell that does not enforce, a cell that is being changed", async () => {
    const code = () => codeOf(api.start({ tenants: ["acme"], to: "cell-02" }));
    await api.run(`update cellfleet_control.fleet set mode = 'recovering'`);
    expect(await code()).toBe("RECOVERING");
    await api.run(`update cellfleet_control.fleet set mode = 'normal'`);
    await api.run(
      `update cellfleet_control.cell set adopted = true, stage = 'observe' where id = 'cell-01'`,
    );
    const stage = await refusal(api.start({ tenants: ["acme"], to: "cell-02" }));
    expect([stage.code, stage.details["rule"]]).toEqual(["SAFETY_RULE", "stage-enforce"]);
    await api.run(
      `update cellfleet_control.cell set adopted = false, stage = 'enforce' where id = 'cell-01'`,
    );
    await api.run(`insert into cellfleet_control.op (id, kind, object, state, step, headline, plan, input, steps, actor)
      values ('op_stop000000', 'cell.stop', 'cell-02', 'running', 'stop', 'stopping', '{}', '{}', '[]', 'x')`);
    expect(await code()).toBe("STATE_CONFLICT");
  });

  test("by its role", async () => {
    const viewer = callsOf(await api.control.client("viewer"));
    const asked = { tenants: ["acme"], to: "cell-02" };
    expect(await codeOf(viewer.start(asked))).toBe("FORBIDDEN");
    expect(await codeOf(viewer.plan(asked))).toBe("FORBIDDEN");
  });
});
