/** What passes the gate in each stage, as a table. */
import { describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { parseCellId } from "../../contract/ids.ts";
import { cellStages } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import type { GateView } from "./gate-decision.ts";
import {
  decideConfirmationOf,
  decidePassage,
  decideStay,
  parseAsked,
  routeClassOf,
  ticketKeyOf,
  vouchedHeaders,
} from "./passage.ts";
import type { Placement } from "./placement.ts";

const sent: Readonly<Record<string, string>> = {
  [headers.tenant]: "acme",
  [headers.keyspace]: "default",
  [headers.key]: "default/tenant/acme",
  [headers.epoch]: "3",
  [headers.cell]: "cell-01",
  [headers.nonce]: "n-1",
};
type Changes = Readonly<Record<string, readonly string[]>>;
const ask = (changes: Changes = {}) =>
  parseAsked((name) => changes[name] ?? (sent[name] === undefined ? [] : [sent[name]]));
const none: Changes = Object.fromEntries(Object.keys(sent).map((name) => [name, []]));
const fanOut: Changes = {
  ...none,
  [headers.cell]: ["cell-01"],
  [headers.nonce]: ["n-1"],
  [headers.routeClass]: ["fan-out"],
};
const view = (changes: Partial<GateView> = {}): GateView => ({
  cell: must(parseCellId("cell-01"), "cell id"),
  stage: "enforce",
  leaseRemainingMs: 1000,
  fresh: true,
  placement: () => ({ state: "active", epoch: 3 }),
  closed: () => false,
  ...changes,
});

const troubles = [
  ["nothing of a router's", ask(none), "GET", {}, "GATE_HEADERS_MISSING"],
  ["half of a router's", ask({ [headers.epoch]: [] }), "GET", {}, "GATE_HEADERS_MISSING"],
  ["another epoch", ask({ [headers.epoch]: ["4"] }), "GET", {}, "PLACEMENT_STALE"],
  ["no lease", ask(), "GET", { leaseRemainingMs: 0 }, "LEASE_MISSING"],
  ["old knowledge", ask(), "GET", { fresh: false }, "GATE_CLOSED"],
  [
    "a fan-out to another cell",
    ask({ ...fanOut, [headers.cell]: ["cell-02"] }),
    "GET",
    {},
    "PLACEMENT_STALE",
  ],
  ["a fan-out that writes", ask(fanOut), "POST", {}, "METHOD_NOT_ALLOWED"],
  ["a fan-out without a lease", ask(fanOut), "GET", { leaseRemainingMs: 0 }, "LEASE_MISSING"],
  ["a fan-out on old knowledge", ask(fanOut), "GET", { fresh: false }, "GATE_CLOSED"],
  [
    "a fan-out of a tenant",
    ask({ ...fanOut, [headers.tenant]: ["acme"] }),
    "GET",
    {},
    "GATE_HEADERS_MISSING",
  ],
  [
    "a fan-out without a nonce",
    ask({ ...fanOut, [headers.nonce]: [] }),
    "GET",
    {},
    "GATE_HEADERS_MISSING",
  ],
] as const;

describe.each(cellStages)("in %s", (stage) => {
  test.each(troubles)("%s", (_what, asked, method, changes, code) => {
    const passage = decidePassage(asked, method, view({ ...changes, stage }));
    if (stage === "enforce") expect(passage).toMatchObject({ kind: "refused", code });
    else expect(passage).toMatchObject({ kind: "passes", wouldRefuse: code });
  });

  test.each([
    ["a request of a router", ask(), "DELETE"],
    ["a fan-out", ask(fanOut), "HEAD"],
  ] as const)("%s passes as it is", (_what, asked, method) => {
    expect(decidePassage(asked, method, view({ stage }))).toMatchObject({
      kind: "passes",
      wouldRefuse: undefined,
    });
    expect(decideConfirmationOf(asked, view({ stage })).kind).toBe("confirmed");
  });
});

test("only what was checked is told to the application", () => {
  const told = (asked: ReturnType<typeof ask>, code?: "PLACEMENT_STALE") =>
    vouchedHeaders(asked, code);
  expect(told(ask())).toContain(headers.key);
  expect(told(ask(), "PLACEMENT_STALE")).toEqual([
    ...[headers.tenant, "acme"],
    ...[headers.keyspace, "default"],
  ]);
  expect(told(ask(none))).toEqual([]);
  expect(told(ask({ ...none, [headers.tenant]: ["not a tenant"] }))).toEqual([]);
  expect(told(ask(fanOut))).toEqual([headers.routeClass, "fan-out"]);
});

test("a request counts in flight under the key that it names, checked or not", () => {
  expect(ticketKeyOf(ask({ [headers.epoch]: ["9"] }))).toBe("default/tenant/acme");
  expect(ticketKeyOf(ask(none))).toBe("");
});

test("a class that is named twice, or not known, is that of an ordinary request", () => {
  const classOf = (...values: string[]) =>
    routeClassOf((name) => (name === headers.routeClass ? values : []));
  expect(["read", "fan-out", "global", ""].map((value) => classOf(value))).toEqual([
    ...["read", "fan-out", "tenant", "tenant"],
  ]);
  expect(classOf("read", "fan-out")).toBe("tenant");
  expect(classOf()).toBe("tenant");
});

describe("what lasts", () => {
  const at = (state: Placement["state"], epoch = 3): Partial<GateView> => {
    const known: Placement = { state, epoch };
    return { placement: () => known };
  };
  const unknown: Partial<GateView> = { placement: () => undefined };
  const shut: Partial<GateView> = { closed: () => true };

  test.each([
    ["while its key is active", at("active"), true],
    ["while its gate is closed", { ...at("active"), ...shut }, true],
    [
      "through a fence behind a closed gate, which may be taken back",
      { ...at("fenced"), ...shut },
      true,
    ],
    ["not through another fence", at("fenced"), false],
    ["not through a fence of another epoch", { ...at("fenced", 4), ...shut }, false],
    ["not without a lease", { ...at("fenced"), ...shut, leaseRemainingMs: 0 }, false],
    ["not when its key has moved, gate or no gate", { ...at("moved"), ...shut }, false],
    ["not when its key was dropped", at("dropped"), false],
    ["not when its key is not known", { ...unknown, ...shut }, false],
  ] as const)("goes on %s", (_what, changes, stays) => {
    expect(decideStay(ask(), view(changes))).toBe(stays);
  });

  test("ends in every stage where its key has left; all else waits for `enforce`", () => {
    for (const stage of ["pass-through", "observe"] as const) {
      expect(decideStay(ask(), view({ stage, ...at("moved") }))).toBe(false);
      expect(decideStay(ask(), view({ stage, ...at("fenced"), leaseRemainingMs: 0 }))).toBe(true);
      expect(decideStay(ask(none), view({ stage }))).toBe(true);
    }
    expect(decideStay(ask(none), view())).toBe(false);
    expect(decideStay(ask(fanOut), view())).toBe(true);
  });
});
