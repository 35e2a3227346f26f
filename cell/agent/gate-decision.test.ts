/** All that a gate can decide, as a table. */
import { describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { parseCellId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import {
  decideAdmission,
  decideConfirmation,
  type GateView,
  parseGateRequest,
} from "./gate-decision.ts";
import type { Placement } from "./placement.ts";

const sent: Readonly<Record<string, string>> = {
  [headers.tenant]: "acme",
  [headers.keyspace]: "default",
  [headers.key]: "default/tenant/acme",
  [headers.epoch]: "3",
  [headers.cell]: "cell-01",
  [headers.nonce]: "n-1",
};
const parse = (changes: Readonly<Record<string, string | readonly string[]>> = {}) =>
  parseGateRequest((name) => [({ ...sent, ...changes }[name] ?? []) as string].flat());
const request = must(parse(), "a well formed request");

const active: Placement = { state: "active", epoch: 3 };
const view = (
  changes: Partial<GateView> = {},
  keys: Readonly<Record<string, Placement>> = { "default/tenant/acme": active },
): GateView => ({
  cell: must(parseCellId("cell-01"), "cell id"),
  stage: "enforce",
  leaseRemainingMs: 1000.9,
  fresh: true,
  placement: (key) => keys[key],
  closed: () => false,
  ...changes,
});

describe("the headers of a router", () => {
  test("are read as one request", () => {
    expect(request).toMatchObject({ tenant: "acme", epoch: 3, cell: "cell-01", nonce: "n-1" });
  });
  test.each([
    ["no tenant", { [headers.tenant]: [] }],
    ["two tenants", { [headers.tenant]: ["acme", "acme"] }],
    ["a tenant with a space", { [headers.tenant]: "ac me" }],
    ["no keyspace", { [headers.keyspace]: [] }],
    ["no key", { [headers.key]: [] }],
    ["a key of another tenant", { [headers.key]: "default/tenant/globex" }],
    ["a key of another keyspace", { [headers.key]: "users/tenant/acme" }],
    ["a key of no kind", { [headers.key]: "default/acme" }],
    ["epoch 0", { [headers.epoch]: "0" }],
    ["an epoch in words", { [headers.epoch]: "3e0" }],
    ["no epoch", { [headers.epoch]: [] }],
    ["no cell", { [headers.cell]: [] }],
    ["no nonce", { [headers.nonce]: [] }],
    ["a nonce of 65 characters", { [headers.nonce]: "x".repeat(65) }],
  ])("with %s are none", (_what, changes) => {
    expect(parse(changes)).toBeUndefined();
  });
});

describe("admission", () => {
  const refusals: ReadonlyArray<[string, GateView, string, boolean]> = [
    ["another cell", view({ cell: must(parseCellId("cell-02"), "id") }), "PLACEMENT_STALE", false],
    ["an unknown key", view({}, {}), "PLACEMENT_STALE", true],
    ["no live lease", view({ leaseRemainingMs: 0 }), "LEASE_MISSING", false],
    ["old knowledge", view({ fresh: false }), "GATE_CLOSED", false],
    ["a closed gate", view({ closed: () => true }), "GATE_CLOSED", true],
    [
      "a lower epoch here",
      view({}, { "default/tenant/acme": { state: "active", epoch: 2 } }),
      "PLACEMENT_STALE",
      true,
    ],
    [
      "a higher epoch here",
      view({}, { "default/tenant/acme": { state: "active", epoch: 4 } }),
      "PLACEMENT_STALE",
      false,
    ],
    ...(["fenced", "importing", "moved", "dropped"] as const).map(
      (state): [string, GateView, string, boolean] => [
        `state ${state}`,
        view({}, { "default/tenant/acme": { state, epoch: 3 } }),
        "PLACEMENT_STALE",
        true,
      ],
    ),
  ];
  test.each(refusals)("is refused for %s", (_what, now, code, worthALook) => {
    expect(decideAdmission(request, now)).toMatchObject({ kind: "refused", code, worthALook });
    expect(decideConfirmation(request, { ...now, closed: () => false }).kind).toBe(
      _what === "a closed gate" ? "confirmed" : "unknown",
    );
  });

  test("is given for the active key at its epoch under a live lease", () => {
    expect(decideAdmission(request, view())).toEqual({ kind: "admitted" });
  });

  test("names what the cell knows, as a hint", () => {
    const moved: Placement = { state: "moved", epoch: 3 };
    expect(decideAdmission(request, view({}, { "default/tenant/acme": moved }))).toMatchObject({
      known: moved,
    });
  });

  test("is refused under a container when the tenant has a placement of its own", () => {
    const inSlot = must(
      parse({ [headers.keyspace]: "users", [headers.key]: "users/slot/7" }),
      "slot request",
    );
    const container = { "users/slot/7": active };
    expect(decideAdmission(inSlot, view({}, container)).kind).toBe("admitted");
    const own = (state: Placement["state"]) => ({
      ...container,
      "users/tenant/acme": { state, epoch: 4 },
    });
    expect(decideAdmission(inSlot, view({}, own("moved"))).kind).toBe("refused");
    expect(decideAdmission(inSlot, view({}, own("dropped"))).kind).toBe("admitted");
  });
});

test("a confirmation names cell, epoch and the lease's whole milliseconds", () => {
  expect(decideConfirmation(request, view())).toEqual({
    kind: "confirmed",
    header: "cell=cell-01;epoch=3;lease=1000",
  });
});
