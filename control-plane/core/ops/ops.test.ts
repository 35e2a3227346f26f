import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CellAction } from "../../../contract/control-api.ts";
import { aCell, aFleet, anAgent, anOp, aRouter } from "../fleet.fixture.ts";
import type { FleetSnapshot, OpView, ProviderNote } from "../fleet.ts";
import { withReserves } from "../standby/reserve.ts";
import { type OpKind, opKinds, opMachines } from "./kinds.ts";
import type { OpTurn } from "./machine.ts";

const note = (action: string, state: "absent" | "creating" | "running" | "stopped" | "dead") =>
  ({
    answer: { id: "cell-01" as never, state, text: `it is ${state}`, services: {}, stores: {} },
    action,
    failures: 0,
    error: "",
    askedAtMs: 0,
  }) satisfies ProviderNote;

const turn = (op: OpView, fleet: Partial<FleetSnapshot> = {}): OpTurn => {
  const kind = opKinds.find((one) => one === op.kind) ?? "tenant.create";
  return opMachines[kind].turn({ op, fleet: aFleet(fleet) });
};
const short = (decided: OpTurn): string =>
  decided.kind === "go"
    ? `${decided.from} -> ${decided.to} (${decided.state})`
    : decided.kind === "call"
      ? `call ${decided.action}`
      : "wait";

test("the tables of all operations, drawn", () => {
  const drawings = opKinds
    .filter((kind) => kind !== "token.revoke" && kind !== "cell.stores")
    .map((kind) => `== ${kind}\n${opMachines[kind].drawing}`);
  expect(`\n${drawings.join("\n\n")}\n`).toMatchInlineSnapshot(`
    "
    == tenant.create
    applying [60 s]
      --applied--> publishing
      --withdrawn--> failed
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == tenant.import
    applying [600 s]  (point of no return)
      --applied--> publishing
      --late--> failed
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == tenant.suspend
    fencing [60 s]  (point of no return)
      --fenced--> publishing
      --late--> failed
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == tenant.resume
    opening [60 s]
      --opened--> publishing
      --withdrawn--> failed
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == tenant.delete
    fencing  (point of no return)
      --fenced--> purging
    purging [1800 s]
      --purged--> publishing
      --again--> purging
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == keyspace.create
    applying [600 s]  (point of no return)
      --applied--> publishing
      --late--> failed
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == override.create
    applying [60 s]
      --applied--> publishing
      --withdrawn--> failed
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == override.delete
    dropping [60 s]  (point of no return)
      --dropped--> publishing
      --late--> failed
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == routing.update
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == claim.change
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == cell.create
    creating [180 s]
      --provided--> opening
      --late--> failed
    opening [180 s]
      --opened--> publishing
      --late--> failed
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == cell.adopt
    publishing [60 s]  (point of no return)
      --acked--> done
      --observing--> agents-inward
      --late--> failed
    agents-inward [600 s]
      --applied--> routers-inward
      --withdrawn--> failed
    routers-inward [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == cell.stage
    starting
      --inward--> agents-inward
      --outward--> routers-outward
      --refused--> failed
    agents-inward [60 s]
      --applied--> routers-inward
      --withdrawn--> failed
    routers-inward [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    routers-outward [60 s]
      --acked--> agents-outward
      --withdrawn--> failed
    agents-outward [60 s]
      --applied--> done
      --late--> failed
    done: end
    failed: end

    == cell.cordon
    marking
      --marked--> done
    done  (point of no return): end
    failed: end

    == cell.uncordon
    marking
      --marked--> done
    done  (point of no return): end
    failed: end

    == cell.kill
    calling [60 s]  (point of no return)
      --provided--> done
      --late--> failed
    done: end
    failed: end

    == cell.stop
    calling [60 s]  (point of no return)
      --provided--> done
      --late--> failed
    done: end
    failed: end

    == cell.start
    calling [120 s]  (point of no return)
      --provided--> opening
      --late--> failed
    opening [120 s]
      --opened--> done
      --late--> failed
    done: end
    failed: end

    == cell.destroy
    retiring
      --retired--> publishing
    publishing [60 s]  (point of no return)
      --acked--> calling
      --late--> failed
    calling [120 s]
      --provided--> done
      --late--> failed
    done: end
    failed: end

    == fleet.recover
    applying [600 s]  (point of no return)
      --applied--> publishing
      --late--> failed
    publishing [60 s]
      --acked--> done
      --late--> failed
    done: end
    failed: end

    == safety.change
    publishing [60 s]  (point of no return)
      --acked--> done
      --late--> failed
    done: end
    failed: end
    "
  `);
});

describe("a tenant's creation", () => {
  const pending = new Map([["op_0000000001", new Map([["cell-01", 1]])]]);
  const op = (step: string, change: Partial<OpView> = {}) =>
    anOp("tenant.create", step, { object: "acme", deadlineAtMs: 2_000_000, ...change });

  test("waits for its cell, by name", () => {
    const decided = turn(op("applying"), { pending });
    expect(short(decided)).toBe("wait");
    expect(decided.headline).toContain("cell-01");
  });
  test("goes on when the cell has applied it", () => {
    expect(short(turn(op("applying")))).toBe("applying -> publishing (running)");
  });
  test("is taken back when it is late, before the point of no return", () => {
    const decided = turn(op("applying", { deadlineAtMs: 999_999 }), { pending });
    expect(short(decided)).toBe("applying -> failed (failed)");
    expect(decided).toMatchObject({ effects: [{ kind: "withdraw" }] });
  });
  test("is done only when every live router serves it", () => {
    const at = (routers: FleetSnapshot["routers"]) =>
      short(turn(op("publishing", { revision: 10 }), { routers }));
    expect(at([aRouter("r1", 10), aRouter("r2", 9)])).toBe("wait");
    expect(at([aRouter("r1", 10), aRouter("r2", 11)])).toBe("publishing -> done (done)");
    // Silent for 16 s: not live any more.
    expect(at([aRouter("r1", 10), aRouter("r2", 9, 984_000)])).toBe("publishing -> done (done)");
  });
  test("without a live router it is done, and says so", () => {
    const decided = turn(op("publishing", { revision: 10 }));
    expect(short(decided)).toBe("publishing -> done (done)");
    expect(decided.headline).toContain("no router is live");
  });
  test("a router that lags too long is named, and the tenant stays", () => {
    const late = op("publishing", { revision: 10, deadlineAtMs: 999_999 });
    const decided = turn(late, { routers: [aRouter("r2", 9)] });
    expect(decided).toMatchObject({ kind: "go", state: "failed", effects: [] });
    expect(decided.headline).toContain("r2 (at 9)");
  });
});

describe("a cell's creation", () => {
  const op = (step: string, change: Partial<OpView> = {}) =>
    anOp("cell.create", step, { deadlineAtMs: 2_000_000, ...change });
  const building = aCell("cell-01", { state: "provisioning" });

  test("asks the provider, looks while it builds, goes on when it runs", () => {
    const cells = [building];
    expect(short(turn(op("creating"), { cells }))).toBe("call create");
    expect(short(turn(op("creating", { provider: note("create", "creating") }), { cells }))).toBe(
      "call look",
    );
    expect(short(turn(op("creating", { provider: note("create", "running") }), { cells }))).toBe(
      "creating -> opening (running)",
    );
  });
  test("asks a failing provider ever more rarely, and gives up at its deadline", () => {
    const failed = (failures: number, agoMs: number): ProviderNote => ({
      answer: null,
      action: "create",
      failures,
      error: "no answer",
      askedAtMs: 1_000_000 - agoMs,
    });
    expect(short(turn(op("creating", { provider: failed(1, 400) })))).toBe("wait");
    expect(short(turn(op("creating", { provider: failed(1, 600) })))).toBe("call create");
    expect(short(turn(op("creating", { provider: failed(8, 9000) })))).toBe("wait");
    const late = op("creating", { provider: failed(8, 9000), deadlineAtMs: 999_999 });
    expect(turn(late)).toMatchObject({ state: "failed", failure: { code: "PROVIDER_FAILED" } });
  });
  test.each([
    ["its agent has not reported", { agents: [] }],
    ["its agent is not primary", { agents: [anAgent("a", { primary: false })] }],
    ["it is not healthy", { health: "unknown" as const }],
    ["it has no lease", { leaseUntilMs: 0 }],
    ["its lease has run out", { leaseUntilMs: 999_999 }],
  ])("does not open while %s", (_name, change) => {
    const cells = [aCell("cell-01", { state: "provisioning", ...change })];
    expect(short(turn(op("opening"), { cells }))).toBe("wait");
  });
  test("opens when nothing is missing", () => {
    const decided = turn(op("opening"), { cells: [building] });
    expect(short(decided)).toBe("opening -> publishing (running)");
    expect(decided).toMatchObject({
      effects: [{ kind: "cell-state", to: "active" }, { kind: "publish" }],
    });
  });
  test("a cell run by hand is not asked of a provider", () => {
    const cells = [aCell("cell-01", { state: "provisioning", provider: "none" })];
    expect(short(turn(op("creating"), { cells }))).toBe("creating -> opening (running)");
  });
});

describe("actions on cells", () => {
  test.each([
    ["kill", "calling", note("kill", "dead"), "calling -> done (done)"],
    ["kill", "calling", note("kill", "running"), "call kill"],
    ["stop", "calling", note("stop", "stopped"), "calling -> done (done)"],
    ["start", "calling", note("start", "running"), "calling -> opening (running)"],
    ["start", "calling", note("stop", "stopped"), "call start"],
    ["destroy", "retiring", null, "retiring -> publishing (running)"],
    ["destroy", "calling", note("destroy", "absent"), "calling -> done (done)"],
    ["cordon", "marking", null, "marking -> done (done)"],
  ] as ReadonlyArray<readonly [CellAction, string, ProviderNote | null, string]>)(
    "%s at %s",
    (action, step, provider, expected) => {
      const op = anOp(`cell.${action}`, step, { provider });
      expect(short(turn(op, { cells: [aCell("cell-01")] }))).toBe(expected);
    },
  );
  test("a cell that keeps others' standbys is destroyed when others do", () => {
    const kept = { origin: "cell-02", host: "cell-01", state: "ready" } as const;
    const standbys = [{ ...kept, buckets: { lo: 0, hi: 255 } }];
    const cells = withReserves([aCell("cell-01"), aCell("cell-02")], standbys);
    const waiting = turn(anOp("cell.destroy", "retiring"), { cells });
    expect(short(waiting)).toBe("wait");
    expect(waiting.headline).toContain("keeps standbys of cell-02; waiting until others do");
    const gone = standbys.map((one) => ({ ...one, state: "leaving" as const }));
    const fresh = withReserves([aCell("cell-01"), aCell("cell-02")], gone);
    expect(short(turn(anOp("cell.destroy", "retiring"), { cells: fresh }))).toBe(
      "retiring -> publishing (running)",
    );
  });
  test("a cell that was started is done when it is seen to serve, not when it is said to run", () => {
    const down = [aCell("cell-01", { health: "down", healthReason: "its gate is silent" })];
    const waiting = turn(anOp("cell.start", "opening"), { cells: down });
    expect(short(waiting)).toBe("wait");
    expect(waiting.headline).toContain("its gate is silent");
    const at = (askedAtMs: number) => {
      const provider = { ...note("start", "running"), askedAtMs };
      return short(
        turn(anOp("cell.start", "opening", { provider }), { cells: [aCell("cell-01")] }),
      );
    };
    expect(at(999_999)).toBe("opening -> done (done)");
    // Its agent called last before it was started: that was the life that ended.
    expect(at(1_000_001)).toBe("wait");
  });
});

describe("every machine, whatever the fleet looks like", () => {
  const world = fc.record({
    late: fc.boolean(),
    pending: fc.boolean(),
    behind: fc.boolean(),
    health: fc.constantFrom("healthy" as const, "down" as const, "unknown" as const),
    lease: fc.boolean(),
    provider: fc.constantFrom(
      null,
      ...(["create", "kill", "stop", "start", "destroy"] as const).flatMap((action) =>
        (["absent", "creating", "running", "stopped", "dead"] as const).map((state) =>
          note(action, state),
        ),
      ),
    ),
  });
  const kinds = opKinds.filter((kind) => kind !== "token.revoke");

  type World = typeof world extends fc.Arbitrary<infer T> ? T : never;
  const decideIn = (kind: OpKind, step: string, one: World): OpTurn => {
    const op = anOp(kind, step, {
      revision: 10,
      deadlineAtMs: one.late ? 1 : 2_000_000,
      provider: one.provider,
    });
    const leaseUntilMs = one.lease ? 2_000_000 : 0;
    return turn(op, {
      cells: [aCell("cell-01", { health: one.health, leaseUntilMs })],
      routers: [aRouter("r1", one.behind ? 9 : 10)],
      pending: new Map(one.pending ? [[op.id, new Map([["cell-01", 1]])]] : []),
    });
  };
  /** The step it is in afterwards; undefined when it is over. */
  const checkTurn = (kind: OpKind, step: string | undefined, one: World): string | undefined => {
    if (step === undefined) return undefined;
    const decided = decideIn(kind, step, one);
    expect(decided.headline).toMatch(/\S/);
    if (decided.kind !== "go") return step;
    expect(decided.event).not.toBe("broken");
    expect(decided.state === "running").toBe(!["done", "failed"].includes(decided.to));
    expect(decided.state === "failed").toBe(decided.failure !== undefined);
    return decided.state === "running" ? decided.to : undefined;
  };

  test("stays within its table, ends exactly at its ends, and says something", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...kinds),
        fc.array(world, { minLength: 1, maxLength: 12 }),
        (kind, worlds) => {
          worlds.reduce<string | undefined>(
            (step, one) => checkTurn(kind, step, one),
            opMachines[kind].first,
          );
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("no step waits without a limit, except those that only a commit can end", () => {
    const unlimited = kinds.flatMap((kind) =>
      opMachines[kind].drawing
        .split("\n")
        .filter((line) => !line.startsWith(" ") && !line.endsWith(": end") && !line.includes("["))
        .map((line) => `${kind}: ${line.replace(/ {2}.*/, "")}`),
    );
    expect(unlimited).toEqual([
      // Named and waited for, however long: see docs/decisions/0037-deletion-waits-for-every-cell.md.
      "tenant.delete: fencing",
      "cell.stage: starting",
      "cell.cordon: marking",
      "cell.uncordon: marking",
      "cell.destroy: retiring",
    ]);
  });

  test("a step of another release fails in the open", () => {
    expect(turn(anOp("cell.create", "dancing"))).toMatchObject({ state: "failed" });
  });
});
