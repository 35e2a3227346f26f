/** Where requests go by the table. */
import { describe, expect, test } from "vitest";
import {
  type CellId,
  defaultKeyspace,
  type Epoch,
  type Revision,
  type TenantId,
} from "../../contract/ids.ts";
import type { PlacementGroup, RoutedCell, RouteState } from "../../contract/routing-table.ts";
import { buildTable, isTableRefusal } from "../../contract/table-state.ts";
import {
  chooseRoute,
  decide,
  decideAnyCell,
  decideFanOut,
  decideGlobal,
  decidePublic,
  type RoutingView,
} from "./decide.ts";

const group = (tenant: string, cell: string, state: RouteState): PlacementGroup => ({
  keyspace: defaultKeyspace,
  kind: "tenant",
  cell: cell as CellId,
  epoch: 3 as Epoch,
  state,
  values: [tenant],
});
const table = buildTable(
  {
    fleet: "f",
    revision: 7 as Revision,
    tenantSources: [],
    serviceRoutes: [],
    keyspaces: [{ name: defaultKeyspace, strategy: "directory", guardMode: "strict" }],
    cells: [{ id: "a" as CellId, services: { default: { endpoints: ["http://a.test"] } } }],
  },
  [
    group("acme", "a", "active"),
    group("held", "a", "hold"),
    group("dark", "a", "unavailable"),
    group("lost", "gone", "active"),
    group("asleep", "a", "suspended"),
  ],
);
if (isTableRefusal(table)) throw new Error(table.text);
const view: RoutingView = { table, protocol: "epoch", passThrough: undefined };
const wanted = (tenant: string, service: string) => ({
  subject: { kind: "tenant", keyspace: defaultKeyspace, tenant: tenant as TenantId } as const,
  service,
});
const ask = (tenant: string, on: RoutingView | undefined = view, service = "default") =>
  decide(on, wanted(tenant, service));

describe("a request", () => {
  test("goes to the owner", () => {
    expect(ask("acme")).toMatchObject({
      kind: "proxy",
      route: { cell: "a", epoch: 3, key: "default/tenant/acme" },
      endpoints: ["http://a.test"],
    });
  });
  test("is held while the placement changes hands", () => {
    expect(ask("held")).toMatchObject({ kind: "hold", route: { cell: "a" } });
  });
  test.each([
    ["of an unknown tenant", "nobody", view, "default", "TENANT_UNKNOWN"],
    ["that nobody may serve", "dark", view, "default", "PLACEMENT_UNAVAILABLE"],
    ["that is suspended", "asleep", view, "default", "TENANT_SUSPENDED"],
    ["whose cell is not in the table", "lost", view, "default", "PLACEMENT_UNAVAILABLE"],
    ["for a service that the cell does not have", "acme", view, "web", "PLACEMENT_UNAVAILABLE"],
    ["without a table", "acme", undefined, "default", "TABLE_NOT_LOADED"],
  ])("%s is refused and goes nowhere else", (_name, tenant, on, service, code) => {
    const decision =
      on === undefined ? decide(undefined, wanted(tenant, service)) : ask(tenant, on, service);
    expect(decision).toMatchObject({ kind: "refuse", code });
  });
  test("of an unknown tenant passes through only where a cell is named for that", () => {
    const through: RoutingView = { ...view, protocol: "none", passThrough: "a" as CellId };
    expect(ask("nobody", through)).toMatchObject({ kind: "proxy", cell: "a", route: undefined });
    expect(ask("dark", through)).toMatchObject({ kind: "refuse" });
    expect(ask("asleep", through)).toMatchObject({ kind: "refuse", code: "TENANT_SUSPENDED" });
  });
  test("that names no tenant is refused as it was read, unless a cell takes such", () => {
    const subject = {
      kind: "refused",
      code: "TENANT_MISSING",
      message: "none",
      named: [],
    } as const;
    const nobody = { subject, service: "default" };
    expect(decide(view, nobody)).toMatchObject({ kind: "refuse", code: "TENANT_MISSING" });
    const through: RoutingView = { ...view, passThrough: "a" as CellId };
    expect(decide(through, nobody)).toMatchObject({ kind: "proxy", cell: "a", route: undefined });
  });
  test("to a service outside of the cells needs one that is registered", () => {
    expect(decideGlobal(view, "login")).toMatchObject({ kind: "refuse", code: "SERVICE_UNKNOWN" });
  });
  test("to all cells names owners that do not offer the service", () => {
    const cells = ["a", "b"].map((id) => ({
      id: id as CellId,
      services: {
        default: { endpoints: [`http://${id}.test`] },
        ...(id === "a" ? { search: { endpoints: ["http://search.test"] } } : {}),
      },
    }));
    const both = buildTable({ ...table.lists, fleet: "f", revision: 8 as Revision, cells }, [
      group("acme", "a", "active"),
      group("globex", "b", "active"),
    ]);
    if (isTableRefusal(both)) throw new Error(both.text);
    const decision = decideFanOut({ ...view, table: both }, "search");
    if (decision.kind === "refuse") throw new Error(decision.message);
    expect(decision.targets).toMatchObject([{ cell: "a" }, { missing: "b" }]);
  });
  test("to all cells goes to owners, and names those that are not in the table", () => {
    const decision = decideFanOut(view, "default");
    if (decision.kind === "refuse") throw new Error(decision.message);
    expect(decision.targets).toMatchObject([{ cell: "a", route: undefined }, { missing: "gone" }]);
    expect(decideFanOut(view, "web")).toMatchObject({ kind: "refuse", code: "SERVICE_UNKNOWN" });
  });
});

test.each([
  ["api.test", "/", "default"],
  ["web.test", "/", "web"],
  ["x.web.test", "/", "below"],
  ["api.test", "/admin", "admin"],
  ["api.test", "/admin/x", "admin"],
  ["api.test", "/admin?x", "admin"],
  ["api.test", "/administrator", "default"],
  ["web.test", "/admin", "admin"],
])("%s%s is for service %s", (host, path, service) => {
  const routes = [
    { pathPrefix: "/admin", service: "admin" },
    { host: "Web.test", service: "web" },
    { host: "*.web.test", service: "below" },
  ];
  expect(chooseRoute(routes, host, path)).toMatchObject({ service, class: "tenant" });
});

test("a route says its class and its deadline, and the first that fits wins", () => {
  const routes = [
    { pathPrefix: "/all", service: "search", class: "fan-out", deadlineMs: 500 },
    { pathPrefix: "/all/x", service: "never" },
    { pathPrefix: "/reports", service: "default", class: "read" },
  ] as const;
  expect(chooseRoute(routes, "api.test", "/all/x")).toEqual({
    ...{ service: "search", class: "fan-out", deadlineMs: 500 },
    ...{ cell: undefined, priority: "normal", fallback: undefined },
  });
  expect(chooseRoute(routes, "api.test", "/reports?a")).toMatchObject({ class: "read" });
});

describe("a halted cell", () => {
  const halted = (id: string, more: object) => ({
    ...{ id: id as CellId, services: { default: { endpoints: [`http://${id}.test`] } } },
    ...more,
  });
  const groups = [
    group("acme", "a", "active"),
    group("held", "a", "hold"),
    group("asleep", "a", "suspended"),
    group("saved", "sb-a-b", "active"),
  ];
  const handOver = (cell: RoutedCell): RoutedCell =>
    cell.halted === true ? { ...cell, handover: true } : cell;
  const taken = buildTable(
    {
      ...{ fleet: "f", revision: 7 as Revision, tenantSources: [], serviceRoutes: [] },
      keyspaces: [{ name: defaultKeyspace, strategy: "directory", guardMode: "strict" }],
      cells: [
        halted("a", { halted: true }),
        halted("b", {}),
        halted("sb-a-b", { host: "b" }),
        halted("sb-c-b", { host: "b" }),
      ],
    },
    groups,
  );
  if (isTableRefusal(taken)) throw new Error(taken.text);
  const on: RoutingView = { table: taken, protocol: "epoch", passThrough: undefined };

  test.each([
    ["acme", "PLACEMENT_UNAVAILABLE"],
    ["held", "PLACEMENT_UNAVAILABLE"],
    ["asleep", "TENANT_SUSPENDED"],
  ])("serves nobody: %s is refused with %s", (tenant, code) => {
    expect(ask(tenant, on)).toMatchObject({ kind: "refuse", code });
    expect(decidePublic(on, "a" as CellId, "default")).toMatchObject({ kind: "refuse" });
  });
  test.each([
    ["acme", { kind: "hold", handover: true }],
    ["held", { kind: "hold" }],
    ["asleep", { code: "TENANT_SUSPENDED" }],
  ])("has requests wait while its keys are given to others: %s", (tenant, decision) => {
    const { table } = on;
    const { cells } = table.lists;
    const handing = buildTable(
      { ...table.lists, fleet: "f", revision: 8 as Revision, cells: cells.map(handOver) },
      groups,
    );
    if (isTableRefusal(handing)) throw new Error(handing.text);
    expect(ask(tenant, { ...on, table: handing })).toMatchObject(decision);
    // Nobody else is meant by it.
    expect(ask("saved", { ...on, table: handing })).toMatchObject({ kind: "proxy" });
    expect(decidePublic({ ...on, table: handing }, "a" as CellId, "default")).toMatchObject({
      kind: "refuse",
    });
  });
  test("is passed over where any cell will do, and so are standbys that own nothing", () => {
    const chosen = new Set<string>();
    for (let share = 0; share < 1; share += 0.01) {
      const decision = decideAnyCell(on, "default", share, () => true);
      if (decision.kind === "proxy") chosen.add(String(decision.cell));
    }
    expect(chosen).toEqual(new Set(["b", "sb-a-b"]));
    expect(decidePublic(on, "sb-c-b" as CellId, "default")).toMatchObject({ kind: "refuse" });
    expect(decideFanOut(on, "default")).toMatchObject({
      targets: [{ missing: "a", halted: true }, { cell: "sb-a-b" }],
    });
  });
  test("what an annex serves is shown under its host", () => {
    expect(ask("saved", on)).toMatchObject({ kind: "proxy", cell: "sb-a-b", shown: "b" });
  });
});
