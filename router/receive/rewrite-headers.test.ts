/** What a cell and a client get to read. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type CellId, defaultKeyspace, type Epoch, type TenantId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import {
  type AttemptHeaders,
  gateHeaders,
  passesOf,
  type RewriteRequest,
  rewriteRequest,
  rewriteResponse,
  traceOf,
} from "./rewrite-headers.ts";

const fresh = { requestId: "new-id", traceId: "a".repeat(32), spanId: "b".repeat(16) };
const trace = traceOf([], false, fresh);
const rewrite = (headers: string[], more: Partial<RewriteRequest> = {}) =>
  rewriteRequest({
    ...{
      headers,
      method: "GET",
      host: "acme.test:80",
      version: "1.1",
      peer: "192.0.2.1",
      trusted: false,
    },
    ...{
      scheme: "http",
      viaName: "cellfleet-r1",
      tenant: "acme" as TenantId,
      keepsTenantHeader: true,
      keepsPosition: false,
      trace,
      trailers: false,
    },
    ...more,
  });
const route = {
  key: "default/tenant/acme" as PlacementKey,
  via: "tenant",
  cell: "cell-01" as CellId,
  epoch: 3 as Epoch,
  state: "active",
} as const;

const anAttempt: AttemptHeaders = {
  cell: route.cell,
  nonce: "n1",
  service: "default",
  routeClass: "tenant",
  named: { keyspace: defaultKeyspace, tenant: "acme" as TenantId },
  route,
};

describe("to the cell", () => {
  test("the client's own headers go in their order, ours behind them", () => {
    expect(rewrite(["X-A", "1", "Host", "h", "x-a", "2"])).toEqual([
      ...["X-A", "1", "Host", "h", "x-a", "2"],
      ...["x-tenant-id", "acme", "x-request-id", "new-id"],
      ...["traceparent", `00-${"a".repeat(32)}-${"b".repeat(16)}-00`],
      ...["x-forwarded-for", "192.0.2.1", "x-forwarded-proto", "http"],
      ...["x-forwarded-host", "acme.test:80", "via", "1.1 cellfleet-r1"],
    ]);
  });

  test.each([
    "X-Cellfleet-Epoch",
    "x-cellfleet-anything",
    "X-Cell",
    "x-cell-epoch",
    "X-Cell-Id",
    "X-Router-Tenant",
    "x_cellfleet_epoch",
    "x.cellfleet.tenant",
    "HTTP_X_CELLFLEET_TENANT",
    "http-x.tenant_id",
    "X_Tenant_Id",
    "x-cellfleet_nonce",
    "X-Real-IP",
    "Forwarded",
    "X-Forwarded-Port",
    "x_forwarded_for",
    "Expect",
    "tracestate",
  ])("a client's %s does not arrive", (name) => {
    expect(rewrite([name, "evil"])).not.toContain("evil");
  });

  test("the tenant that the cell reads is the one the router decided by", () => {
    const got = rewrite(["X-Tenant-Id", "globex", "x-tenant-id", "globex"]);
    expect(headerValues(got, "x-tenant-id")).toEqual(["acme"]);
  });

  test("no client can plant a header under our names", () => {
    const name = fc.stringMatching(/^[xX][-_][cC][eE][lL][lL][a-z_-]{0,12}$/);
    fc.assert(
      fc.property(name, (spoofed) => {
        expect(rewrite([spoofed, "evil"])).not.toContain("evil");
      }),
    );
  });

  test("a trusted proxy's word about the hops before it counts", () => {
    const said = [
      "X-Forwarded-For",
      "203.0.113.9",
      "X-Forwarded-Proto",
      "https",
      "X-Forwarded-Host",
      "pub.test",
      "Forwarded",
      "for=203.0.113.9",
    ];
    const got = rewrite(said, { trusted: true });
    expect(headerValues(got, "x-forwarded-for")).toEqual(["203.0.113.9, 192.0.2.1"]);
    expect(headerValues(got, "x-forwarded-proto")).toEqual(["https"]);
    expect(headerValues(got, "x-forwarded-host")).toEqual(["pub.test"]);
    expect(headerValues(got, "forwarded")).toEqual(["for=203.0.113.9"]);
    expect(rewrite(said).join()).not.toMatch(/203.0.113.9|https|pub.test/);
  });

  test.each([
    ["203.0.113.9, 10.0.0.7", "203.0.113.9, 10.0.0.7"],
    ["198.51.100.1, 203.0.113.9, 10.0.0.7", "203.0.113.9, 10.0.0.7"],
    ["10.9.9.9, nonsense, 10.0.0.7", "nonsense, 10.0.0.7"],
    ["198.51.100.1, 203.0.113.9", "203.0.113.9"],
  ])("of the hops %s what somebody trusted has seen is passed on", (said, known) => {
    const trustsHop = (address: string) => address.startsWith("10.");
    const got = rewrite(["X-Forwarded-For", said], { trusted: true, trustsHop });
    expect(headerValues(got, "x-forwarded-for")).toEqual([`${known}, 192.0.2.1`]);
  });

  test("Via grows, and shows a loop", () => {
    const got = rewrite(["Via", "1.0 fred"]);
    expect(headerValues(got, "via")).toEqual(["1.0 fred, 1.1 cellfleet-r1"]);
    expect(passesOf(got, "cellfleet-r1")).toBe(1);
    expect(
      passesOf(["Via", "1.1 a, 1.1 CELLFLEET-r1 (x)", "via", "1.1 cellfleet-r1"], "cellfleet-r1"),
    ).toBe(2);
  });

  test("Max-Forwards counts down where it counts", () => {
    const hops = (method: string, value: string) =>
      headerValues(rewrite(["Max-Forwards", value], { method }), "max-forwards");
    expect([hops("OPTIONS", "7"), hops("GET", "7"), hops("OPTIONS", "x")]).toEqual([
      ["6"],
      ["7"],
      ["x"],
    ]);
  });

  test("of TE only trailers passes", () => {
    expect(headerValues(rewrite([], { trailers: true }), "te")).toEqual(["trailers"]);
  });

  test("an attempt names key, epoch, cell and nonce", () => {
    const got = gateHeaders(anAttempt);
    expect(got.join(" ")).toBe(
      "x-cellfleet-cell cell-01 x-cellfleet-nonce n1 x-cellfleet-tenant acme x-cellfleet-keyspace default x-cellfleet-key default/tenant/acme x-cellfleet-epoch 3",
    );
  });

  test("it names a service and a class that are not the usual ones", () => {
    const got = gateHeaders({ ...anAttempt, service: "web", routeClass: "read" });
    expect(headerValues(got, "x-cellfleet-service")).toEqual(["web"]);
    expect(headerValues(got, "x-cellfleet-class")).toEqual(["read"]);
    const all = gateHeaders({
      ...anAttempt,
      ...{ named: undefined, route: undefined, routeClass: "fan-out" },
    });
    expect(all.join(" ")).toBe(
      "x-cellfleet-cell cell-01 x-cellfleet-nonce n1 x-cellfleet-class fan-out",
    );
  });
});

describe("the trace", () => {
  const parent = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;
  test("of the client goes on with a span of ours", () => {
    const got = traceOf(["traceparent", parent], false, fresh);
    expect(got).toMatchObject({
      traceId: "1".repeat(32),
      spanId: fresh.spanId,
      flags: "01",
      continued: true,
    });
    expect(rewrite(["tracestate", "k=v"], { trace: got })).toContain("k=v");
  });
  test.each([
    ["nonsense"],
    [`01-${"1".repeat(32)}-${"2".repeat(16)}-01-x`],
    [`00-${"0".repeat(32)}-${"2".repeat(16)}-01`],
    [`00-${"1".repeat(32)}-${"0".repeat(16)}-01`],
    [`00-${"A".repeat(32)}-${"2".repeat(16)}-01`],
  ])("%s starts anew", (bad) => {
    expect(traceOf(["traceparent", bad], false, fresh)).toMatchObject({
      traceId: fresh.traceId,
      continued: false,
    });
  });
  test("two parents start anew", () => {
    expect(traceOf(["traceparent", parent, "traceparent", parent], false, fresh).continued).toBe(
      false,
    );
  });
  test("a request id counts only from a trusted peer, and only a sound one", () => {
    expect(traceOf(["X-Request-Id", "r1"], false, fresh).requestId).toBe("new-id");
    expect(traceOf(["X-Request-Id", "r1"], true, fresh).requestId).toBe("r1");
    expect(traceOf(["X-Request-Id", "r 1"], true, fresh).requestId).toBe("new-id");
  });
});

describe("to the client", () => {
  test("who answered is said by us; what the cell says to the router stays here", () => {
    const raw = [
      "X-Cell",
      "evil",
      "x-cellfleet-confirm",
      "c",
      "x-cellfleet-error",
      "E",
      "A",
      "1",
      "Set-Cookie",
      "a",
      "Set-Cookie",
      "b",
    ];
    const own = ["x-request-id", "r1", "x-cell", "cell-01", "x-cell-epoch", "3"];
    const kept = ["A", "1", "Set-Cookie", "a", "Set-Cookie", "b"];
    expect(rewriteResponse({ headers: raw, requestId: "r1", from: route, gated: false })).toEqual([
      ...kept,
      ...own,
    ]);
    expect(rewriteResponse({ headers: raw, requestId: "r1", from: route, gated: true })).toEqual([
      ...["x-cellfleet-error", "E"],
      ...kept,
      ...own,
    ]);
  });
  test("it can be kept quiet", () => {
    const got = rewriteResponse({ headers: [], requestId: "r1", from: undefined, gated: false });
    expect(got).toEqual(["x-request-id", "r1"]);
  });
});
