import { describe, expect, test } from "vitest";
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import { cellIdSchema, epochSchema, opIdSchema } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { rpoReportOf, suspectsOf } from "./rpo.ts";
import { amended, amendmentText, keepLost } from "./rpo-amend.ts";
import type { Finding, Ring, RpoFacts, RpoKey } from "./rpo-facts.ts";
import { findingOf } from "./rpo-finding.ts";
import { parseLsn, positionsText, readPositions } from "./rpo-position.ts";

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
  {
    ...{ key: keyOf(tenant), cell: annex, owner: annex, epoch: 1, fate: "adopted", reason: "" },
    ...{ remoteLsn: null, ...change },
  },
];

function facts(rings: readonly Ring[], change: Partial<RpoFacts> = {}): RpoFacts {
  return {
    failover: opIdSchema.parse("op_1failover001"),
    ...{ cell: dead, detectedAtMs: cutMs - 500, fencedAtMs: cutMs },
    partners: [
      {
        ...{ annex, host: cellIdSchema.parse("cell-02"), buckets: { lo: 0, hi: 255 } },
        ...{ heartbeatAgeMs: 100, heartbeatAtMs: cutMs - 1500 },
        stores: [{ name: "default", remoteLsn: applied }],
      },
    ],
    keys: new Map([keyFate("acme"), keyFate("globex")]),
    routers: ["router-1"],
    rings,
    ...change,
  };
}

/** Where the partner's copy stands in each store. */
const inStores = (
  at: Readonly<Record<string, string | null>>,
  entries: readonly AckedWrite[],
): RpoFacts =>
  facts([ring(entries)], {
    partners: facts([]).partners.map((one) => ({
      ...one,
      ...(Object.values(at).includes(null) ? { heartbeatAtMs: null } : {}),
      stores: Object.entries(at).map(([name, remoteLsn]) => ({ name, remoteLsn })),
    })),
  });

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

  test("none of the cell's next life, to which its tenants came home at a later epoch", () => {
    const later = write("acme", { lsn: "0/9000", epoch: epochSchema.parse(4), atMs: cutMs + 9000 });
    const safe = write("acme", { atMs: cutMs - 3000 });
    const given = facts([ring([safe, later])]);
    expect(suspectsOf(given)).toEqual([]);
    expect(report(given).totals.acked).toBe(1);
  });

  test("none of keys that had left the cell before, or that nobody holds: those are named whole", () => {
    const keys = new Map([keyFate("acme", { cell: dead, fate: "unavailable", reason: "no copy" })]);
    const late = { lsn: "0/9000" };
    const given = facts([ring([write("acme", late), write("moved-on", late)])], { keys });
    expect(suspectsOf(given)).toEqual([]);
    expect(report(given).unavailable).toEqual([{ key: keyOf("acme"), reason: "no copy" }]);
  });

  test("of a key that was given back: by the position of the copy there", () => {
    const back = { owner: "cell-03", fate: "returned", remoteLsn: "0/3000" } as const;
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

  test("none that was acknowledged before the log can have come to where the partner has it, though it tells no position", () => {
    const placeless = (atMs: number, lsn?: string) => write("acme", { lsn, atMs });
    const known = write("globex", { atMs: cutMs - 2000 });
    const doubtful = (...entries: AckedWrite[]) =>
      suspectsOf(facts([ring([known, ...entries])])).map(({ write: { atMs } }) => cutMs - atMs);
    // A second for the way to the router, and for its clock.
    expect(doubtful(placeless(cutMs - 3001), placeless(cutMs - 2999))).toEqual([2999]);
    // What tells a position is believed.
    expect(doubtful(placeless(cutMs - 60_000, "0/9000"))).toEqual([60_000]);
    // Where nobody knows how far the partner came, all are.
    const unknown = inStores({ default: null }, [known, placeless(cutMs - 60_000)]);
    expect(suspectsOf(unknown)).toHaveLength(2);
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
      "only writes of the cell's next life say when the partner was in step",
      facts([ring([write("acme", { atMs: cutMs + 60_000, epoch: epochSchema.parse(4) })])], {
        partners: facts([]).partners.map((one) => ({ ...one, heartbeatAtMs: null })),
      }),
      "nobody knows when",
    ],
    [
      "of one store nobody knows how far the partner had come",
      inStores({ default: applied, orders: null }, [safe]),
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

test("positions of several stores travel as one text, or not at all", () => {
  const two = [
    { name: "default", remoteLsn: "0/9000" },
    { name: "orders", remoteLsn: "1/0" },
  ];
  expect(positionsText(two)).toBe("default=0/9000, orders=1/0");
  expect(readPositions(positionsText(two))).toEqual(two);
  expect(readPositions(positionsText(two.slice(1)))).toEqual([
    { name: "default", remoteLsn: "1/0" },
  ]);
  expect([positionsText([]), positionsText([{ name: "a", remoteLsn: null }])]).toEqual([
    null,
    null,
  ]);
  expect(readPositions(null)).toEqual([]);
});

describe("a cell with several stores", () => {
  const both = { default: applied, orders: "0/50" };
  const cases: ReadonlyArray<
    readonly [string, Partial<AckedWrite>, readonly string[] | undefined]
  > = [
    ["applied in both", { lsns: { default: "0/2000", orders: "0/50" } }, undefined],
    ["behind in the second alone", { lsns: { default: "0/1", orders: "0/51" } }, ["orders"]],
    ["behind in the first alone", { lsns: { default: "0/2001", orders: "0/1" } }, ["default"]],
    ["whose second position nobody told", { lsns: { default: "0/1" } }, ["orders"]],
    ["of an agent that knew of one store", { lsn: "0/1" }, ["orders"]],
  ];
  test.each(cases)("a write %s", (_what, change, stores) => {
    const given = inStores(both, [write("acme", { lsn: undefined, ...change })]);
    expect(suspectsOf(given).map((one) => one.stores)).toEqual(
      stores === undefined ? [] : [stores],
    );
  });

  test("exact when every store's position is known and a write proves them all", () => {
    const proof = { lsn: undefined, lsns: { default: "0/1", orders: "0/1" }, atMs: cutMs - 4000 };
    const { method, partners } = report(inStores(both, [write("acme", proof)]));
    expect([method, partners[0]?.remoteLsn]).toEqual(["exact", "default=0/2000, orders=0/50"]);
  });

  const findings: ReadonlyArray<
    readonly [string, readonly string[], readonly string[], readonly string[], Finding]
  > = [
    ["one store, its record is there", [], ["default"], ["default"], "found"],
    ["one store, its record is not there", [], ["default"], [], "absent"],
    ["one store that says no records", [], [], [], "unasked"],
    ["its record is in the other store", ["orders"], ["default", "orders"], ["default"], "unasked"],
    ["its record is in each that is in doubt", ["a", "b"], ["a", "b"], ["a", "b"], "found"],
    ["of two in doubt in one alone", ["a", "b"], ["a", "b"], ["a"], "unasked"],
    ["no record anywhere", ["a", "b"], ["a"], [], "absent"],
    ["the store in doubt keeps no records", ["b"], ["a"], [], "unasked"],
  ];
  test.each(findings)("%s", (_what, inDoubt, asked, found, finding) => {
    expect(findingOf(inDoubt, { asked, found })).toBe(finding);
  });
});

describe("a list that comes late", () => {
  const safe = write("acme", { atMs: cutMs - 4000 });
  const late = write("acme", { lsn: "0/9000", idempotencyKey: "k" });
  const routers = ["router-1", "router-2"];
  const before = report(facts([ring([safe])], { routers }));
  const whole = facts([ring([safe]), ring([late], { router: "router-2" })], { routers });

  test("its writes are named, and what was a bound is exact", () => {
    const after = amended(before, report(whole, "absent"), cutMs + 60_000);
    expect([before.method, before.totals.lost, before.revision]).toEqual(["bound", 0, 1]);
    expect(after).toMatchObject({ method: "exact", revision: 2, totals: { lost: 1 } });
    expect(after.tenants[0]?.lost.map(({ requestId }) => requestId)).toEqual([late.requestId]);
    expect(after.amendedAt).toBe(new Date(cutMs + 60_000).toISOString());
    expect(amendmentText(before, after)).toContain(
      "1 more lost, 0 more unknown; 1 lost and 0 unknown in all, bound became exact",
    );
  });

  test("what was named lost stays named, though it was brought back since", () => {
    const lost = report(whole, "absent");
    const again = rpoReportOf(
      whole,
      suspectsOf(whole),
      keepLost(lost, () => "found"),
    );
    expect(again.totals).toMatchObject({ lost: 1, found: 0 });
    expect(amended(lost, again, cutMs)).toBe(lost);
    expect(keepLost(null, () => "found")(suspectsOf(whole)[0] as never)).toBe("found");
  });
});
