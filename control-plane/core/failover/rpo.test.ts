import { describe, expect, test } from "vitest";
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import { cellIdSchema, epochSchema, opIdSchema } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { rpoReportOf, suspectsOf } from "./rpo.ts";
import {
  type Finding,
  leastLsn,
  parseLsn,
  type Ring,
  type RpoFacts,
  type RpoKey,
} from "./rpo-facts.ts";

const dead = cellIdSchema.parse("cell-01");
const annex = cellIdSchema.parse("sb-cell-01-cell-02");
const cutMs = 1_000_000;
const applied = "0/2000";

const keyOf = (tenant: string) => placementKeySchema.parse(`default/tenant/${tenant}`);

let requests = 0;
function write(tenant: string, change: Partial<AckedWrite> = {}): AckedWrite {
  requests += 1;
  return {
    ...{ key: keyOf(tenant), tenant, epoch: epochSchema.parse(1), method: "POST", path: "/orders" },
    ...{ status: 201, requestId: `r${requests}`, lsn: "0/1000", atMs: cutMs - 2000 },
    ...change,
  };
}

const ring = (entries: readonly AckedWrite[], change: Partial<Ring> = {}): Ring => ({
  ...{ router: "router-1", instance: "i1", isWhole: true, completeSinceMs: 0, offsetMs: 0 },
  entries,
  ...change,
});

const keyFate = (tenant: string, change: Partial<RpoKey> = {}): [string, RpoKey] => [
  keyOf(tenant),
  { key: keyOf(tenant), cell: annex, fate: "adopted", reason: "", remoteLsn: null, ...change },
];

function facts(rings: readonly Ring[], change: Partial<RpoFacts> = {}): RpoFacts {
  return {
    failover: opIdSchema.parse("op_1failover001"),
    ...{ cell: dead, detectedAtMs: cutMs - 500, fencedAtMs: cutMs, incomparable: undefined },
    partners: [
      {
        ...{ annex, host: cellIdSchema.parse("cell-02"), buckets: { lo: 0, hi: 255 } },
        ...{ remoteLsn: applied, heartbeatAgeMs: 100, heartbeatAtMs: cutMs - 1500 },
      },
    ],
    keys: new Map([keyFate("acme"), keyFate("globex")]),
    routers: ["router-1"],
    rings,
    ...change,
  };
}

const report = (given: RpoFacts, finding: Finding = "unasked") =>
  rpoReportOf(given, suspectsOf(given), () => finding);

describe("which writes are in doubt", () => {
  const cases: ReadonlyArray<readonly [string, Partial<AckedWrite>, boolean]> = [
    ["before the partner's position", { lsn: "0/1FFF" }, false],
    ["at it", { lsn: "0/2000" }, false],
    ["one byte behind it", { lsn: "0/2001" }, true],
    ["behind it in the upper half alone", { lsn: "1/0" }, true],
    ["without a position", { lsn: undefined }, true],
    ["with a position that is none", { lsn: "what" }, true],
  ];
  test.each(cases)("a write %s", (_what, change, inDoubt) => {
    const given = facts([ring([write("acme", change)])]);
    expect(suspectsOf(given)).toHaveLength(inDoubt ? 1 : 0);
  });

  test("all of them, where positions cannot be compared", () => {
    const given = facts([ring([write("acme")])], { incomparable: "several servers" });
    expect(suspectsOf(given).map(({ because }) => because)).toEqual(["several servers"]);
  });

  test("none of keys that had left the cell before, or that nobody holds: those are named whole", () => {
    const keys = new Map([keyFate("acme", { cell: dead, fate: "unavailable", reason: "no copy" })]);
    const late = { lsn: "0/9000" };
    const given = facts([ring([write("acme", late), write("moved-on", late)])], { keys });
    expect(suspectsOf(given)).toEqual([]);
    expect(report(given).unavailable).toEqual([{ key: keyOf("acme"), reason: "no copy" }]);
  });

  test("of a key that was given back: by the position of the copy there", () => {
    const back = { cell: "cell-03", fate: "returned", remoteLsn: "0/3000" } as const;
    const given = facts(
      [ring([write("acme", { lsn: "0/2800" }), write("acme", { lsn: "0/3001" })])],
      {
        keys: new Map([keyFate("acme", back)]),
      },
    );
    expect(suspectsOf(given).map(({ owner, write: { lsn } }) => `${owner} ${lsn}`)).toEqual([
      "cell-03 0/3001",
    ]);
  });

  test("a page that came twice counts once", () => {
    const one = write("acme", { lsn: "0/9000" });
    expect(suspectsOf(facts([ring([one]), ring([one])]))).toHaveLength(1);
  });
});

describe("what became of a write in doubt", () => {
  const given = facts([ring([write("acme", { lsn: "0/9000", idempotencyKey: "k" })])]);

  test("its record is there: a false alarm, counted", () => {
    const { totals, tenants } = report(given, "found");
    expect(totals).toMatchObject({ found: 1, lost: 0, unknown: 0 });
    expect(tenants).toEqual([]);
  });

  test("its record is not there: lost, with the reason", () => {
    const { totals, tenants } = report(given, "absent");
    expect(totals).toMatchObject({ found: 0, lost: 1, unknown: 0 });
    expect(tenants[0]?.lost[0]?.because).toBe(
      "acknowledged at 0/9000, and the partner had 0/2000; its idempotency record is not there",
    );
  });

  test("nobody could look: unknown", () => {
    expect(report(given).totals).toMatchObject({ found: 0, lost: 0, unknown: 1 });
  });
});

describe("how sure the report is", () => {
  const safe = write("acme", { atMs: cutMs - 4000 });

  test("exact, when every list reaches back behind a write that the partner has", () => {
    const { method, totals } = report(facts([ring([safe])]));
    expect([method, totals.acked]).toEqual(["exact", 1]);
  });

  test("exact without traffic, by the heartbeat", () => {
    expect(report(facts([ring([])])).method).toBe("exact");
  });

  const bounds: ReadonlyArray<readonly [string, RpoFacts, string]> = [
    [
      "a router that served lately is silent",
      facts([ring([safe])], { routers: ["router-1", "router-2"] }),
      "router-2 served the fleet lately and did not hand in",
    ],
    ["its last page is missing", facts([ring([safe], { isWhole: false })]), "did not hand in"],
    [
      "a list begins too late",
      facts([ring([safe]), ring([], { router: "router-2", completeSinceMs: cutMs - 3000 })]),
      "is listed only since",
    ],
    [
      "the clock of a router hides that",
      facts([
        ring([safe]),
        ring([], { router: "router-2", completeSinceMs: cutMs - 90_000, offsetMs: 87_000 }),
      ]),
      "is listed only since",
    ],
    [
      "no write and no heartbeat says when the partner was in step",
      facts([ring([])], {
        partners: facts([]).partners.map((one) => ({ ...one, heartbeatAtMs: null })),
      }),
      "nobody knows when",
    ],
    [
      "positions cannot be compared, and nobody knows when it was in step",
      facts([ring([safe])], {
        incomparable: "several servers",
        partners: facts([]).partners.map((one) => ({ ...one, heartbeatAtMs: null })),
      }),
      "nobody knows when",
    ],
  ];
  test.each(bounds)("bound: %s", (_what, given, reason) => {
    const { method, methodReason } = report(given);
    expect(method).toBe("bound");
    expect(methodReason).toContain(reason);
  });

  test("bound: every tenant is told how far back a loss may lie, also those without a named write", () => {
    const late = write("acme", { lsn: "0/9000", atMs: cutMs - 100 });
    const { tenants } = report(facts([ring([safe, late])], { routers: ["router-1", "router-2"] }));
    // The youngest write that the partner has is 4 s old; 1 s is the margin of clocks.
    expect(tenants.map(({ tenant, boundSeconds }) => [tenant, boundSeconds])).toEqual([
      ["acme", 5],
      ["globex", 5],
    ]);
  });

  test("exact: by the first write that is named", () => {
    const lost = [2000, 300].map((ms) => write("acme", { lsn: "0/9000", atMs: cutMs - ms }));
    const { method, tenants } = report(facts([ring([safe, ...lost])]), "absent");
    expect([method, tenants[0]?.boundSeconds]).toEqual(["exact", 2]);
  });
});

test("positions", () => {
  expect(parseLsn("16/B374D848")).toBe(0x16_b374_d848n);
  expect(["", "16", "16/", "G/0", null, undefined].map(parseLsn)).toEqual(Array(6).fill(undefined));
});

test("of several databases of one server the one that is furthest behind counts", () => {
  expect(leastLsn(["0/9000", "0/10000", "0/8FFF"])).toBe("0/8FFF");
  expect([leastLsn([]), leastLsn(["0/1", null]), leastLsn([null, "0/1"])]).toEqual([
    null,
    null,
    null,
  ]);
});
