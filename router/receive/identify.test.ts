/** Who a request belongs to: one reading, or a refusal. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AliasTarget } from "../../contract/alias-index.ts";
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";
import type { TenantSource } from "../../contract/tenant-source.ts";
import { type Addressed, identify, noTokens } from "./identify.ts";

const sources: TenantSource[] = [
  { host: "{tenant}.cells.test" },
  { header: "X-Tenant-Id" },
  { path: "/t/{tenant}", strip: true },
  { cookie: "tenant" },
  { query: "tenant" },
];
const find = (request: Partial<Addressed>, from: readonly TenantSource[] = sources) =>
  identify({ hostname: "api.test", path: "/orders", headers: [], ...request }, from, () => []);

describe("a tenant is read from", () => {
  test.each([
    ["the host", { hostname: "acme.cells.test" }, "acme", "/orders"],
    ["several labels of the host", { hostname: "eu.acme.cells.test" }, "eu.acme", "/orders"],
    ["a header, whatever its case", { headers: ["x-TENANT-id", "Acme"] }, "Acme", "/orders"],
    ["the path, which loses it", { path: "/t/acme/orders?x=1" }, "acme", "/orders?x=1"],
    ["the path alone", { path: "/t/acme" }, "acme", "/"],
    ["the path before a query", { path: "/t/acme?x=1" }, "acme", "/?x=1"],
    ["an escaped path", { path: "/t/a%40b.test/x" }, "a@b.test", "/x"],
    ["a cookie among others", { headers: ["Cookie", "a=1; tenant=acme; b=2"] }, "acme", "/orders"],
    ["the query", { path: "/orders?a=1&tenant=acme" }, "acme", "/orders?a=1&tenant=acme"],
    [
      "two places that agree",
      { hostname: "acme.cells.test", headers: ["X-Tenant-Id", "acme"] },
      "acme",
      "/orders",
    ],
  ])("%s", (_name, request, tenant, path) => {
    expect(find(request)).toMatchObject({ kind: "tenant", tenant, path, keyspace: "default" });
  });
});

describe("a request is refused", () => {
  test.each([
    ["without a tenant", {}, "TENANT_MISSING"],
    ["with the bare domain", { hostname: "cells.test" }, "TENANT_MISSING"],
    ["with an empty label", { hostname: ".cells.test" }, "TENANT_MISSING"],
    ["with a path that only begins so", { path: "/tea/acme" }, "TENANT_MISSING"],
    [
      "with the header twice",
      { headers: ["x-tenant-id", "acme", "X-Tenant-Id", "acme"] },
      "TENANT_CONFLICT",
    ],
    ["with the cookie twice", { headers: ["Cookie", "tenant=a; tenant=b"] }, "TENANT_CONFLICT"],
    ["with the query twice", { path: "/?tenant=a&tenant=a" }, "TENANT_CONFLICT"],
    [
      "with an escaped spelling beside a plain one",
      { path: "/?tenant=a&te%6eant=b" },
      "TENANT_CONFLICT",
    ],
    [
      "when host and header disagree",
      { hostname: "acme.cells.test", headers: ["X-Tenant-Id", "globex"] },
      "TENANT_CONFLICT",
    ],
    [
      "when header and query disagree",
      { path: "/?tenant=b", headers: ["X-Tenant-Id", "a"] },
      "TENANT_CONFLICT",
    ],
    ["with a list in the header", { headers: ["X-Tenant-Id", "acme, globex"] }, "TENANT_INVALID"],
    ["with an empty header", { headers: ["X-Tenant-Id", ""] }, "TENANT_INVALID"],
    ["with a slash in an escaped path", { path: "/t/a%2fb/x" }, "TENANT_INVALID"],
    ["with a broken escape", { path: "/t/a%zz/x" }, "TENANT_INVALID"],
    ["with a control character", { path: "/?tenant=a%00" }, "TENANT_INVALID"],
    ["with 129 characters", { headers: ["X-Tenant-Id", "a".repeat(129)] }, "TENANT_INVALID"],
    [
      "with a bad second place",
      { hostname: "acme.cells.test", headers: ["X-Tenant-Id", "!"] },
      "TENANT_INVALID",
    ],
  ])("%s", (_name, request, code) => {
    expect(find(request)).toMatchObject({ kind: "refused", code });
  });
});

test("a source may name a keyspace, and another keyspace is another tenant", () => {
  const users = { header: "x-user", keyspace: "users" as KeyspaceName };
  expect(find({ headers: ["X-User", "7"] }, [users])).toMatchObject({
    keyspace: "users",
    tenant: "7",
  });
  const both = [users, { header: "x-tenant-id" }];
  expect(find({ headers: ["X-User", "7", "x-tenant-id", "7"] }, both)).toMatchObject({
    code: "TENANT_CONFLICT",
  });
});

test("a pattern may go on behind the tenant", () => {
  const api = [{ path: "/t/{tenant}/api", strip: true }];
  expect(find({ path: "/t/acme/api/orders" }, api)).toMatchObject({
    tenant: "acme",
    path: "/orders",
  });
  expect(find({ path: "/t/acme/apis" }, api)).toMatchObject({ code: "TENANT_MISSING" });
});

test("whatever two places say, they agree or the request is refused", () => {
  const id = fc.constantFrom("acme", "globex", "a", "A");
  fc.assert(
    fc.property(
      fc.record({ header: fc.array(id, { maxLength: 2 }), query: fc.array(id, { maxLength: 2 }) }),
      ({ header, query }) => {
        const found = find({
          headers: header.flatMap((value) => ["X-Tenant-Id", value]),
          path: `/?${query.map((value) => `tenant=${value}`).join("&")}`,
        });
        const said = [...header, ...query];
        if (found.kind === "tenant") {
          expect(new Set(said)).toEqual(new Set([found.tenant]));
          expect(header.length).toBeLessThan(2);
          expect(query.length).toBeLessThan(2);
        } else {
          const twice = header.length > 1 || query.length > 1 || new Set(said).size > 1;
          expect(found.code).toBe(twice ? "TENANT_CONFLICT" : "TENANT_MISSING");
        }
      },
    ),
  );
});

describe("a tenant is read from a name", () => {
  const named: TenantSource[] = [
    { header: "x-tenant-id" },
    { host: "{tenant}", alias: "domain" },
    { cookie: "login", alias: "email" },
    { path: "/hook/{tenant}", alias: "account", strip: true },
    { query: "user", alias: "email", keyspace: "users" as KeyspaceName },
  ];
  const known: Readonly<Record<string, readonly string[]>> = {
    "domain shop.acme.test": ["default/acme"],
    "email ann": ["default/acme"],
    "email both": ["default/acme", "default/globex", "users/ann"],
    "email pair": ["default/initech", "default/acme"],
    "account 4711": ["default/acme"],
  };
  const resolve = (namespace: string, name: string): AliasTarget[] =>
    (known[`${namespace} ${name}`] ?? []).map((text) => {
      const [keyspace, tenant] = text.split("/");
      return { keyspace: keyspace as KeyspaceName, tenant: tenant as TenantId };
    });
  const read = (request: Partial<Addressed>) =>
    identify({ hostname: "api.test", path: "/x", headers: [], ...request }, named, resolve);

  test.each([
    ["the host", { hostname: "shop.acme.test" }, "default", "acme", "/x"],
    ["a cookie", { headers: ["cookie", "login=ann"] }, "default", "acme", "/x"],
    ["the path, which loses it", { path: "/hook/4711/paid" }, "default", "acme", "/paid"],
    [
      "two names of one tenant",
      { hostname: "shop.acme.test", headers: ["cookie", "login=ann"] },
      "default",
      "acme",
      "/x",
    ],
    [
      "one of several, if a header names it",
      { headers: ["cookie", "login=both", "x-tenant-id", "globex"] },
      "default",
      "globex",
      "/x",
    ],
    [
      "one of several, if another name is only its",
      { hostname: "shop.acme.test", headers: ["cookie", "login=both"] },
      "default",
      "acme",
      "/x",
    ],
    [
      "one of several, where only one keyspace counts",
      { path: "/x?user=both" },
      "users",
      "ann",
      "/x?user=both",
    ],
    [
      "a header beside a name of nobody",
      { hostname: "nobody.test", headers: ["x-tenant-id", "acme"] },
      "default",
      "acme",
      "/x",
    ],
    [
      "a header, and a path with a name of nobody stays whole",
      { path: "/hook/0/paid", headers: ["x-tenant-id", "acme"] },
      "default",
      "acme",
      "/hook/0/paid",
    ],
  ])("%s", (_name, request, keyspace, tenant, path) => {
    expect(read(request)).toMatchObject({ kind: "tenant", keyspace, tenant, path });
  });

  test.each([
    ["that nobody has", { hostname: "nobody.test" }, "TENANT_UNKNOWN"],
    ["that stands for several", { headers: ["cookie", "login=both"] }, "TENANT_AMBIGUOUS"],
    [
      "that stands for several, beside another such",
      { headers: ["cookie", "login=both"], path: "/x?user=pair" },
      "TENANT_AMBIGUOUS",
    ],
    [
      "of another tenant than the header's",
      { hostname: "shop.acme.test", headers: ["x-tenant-id", "globex"] },
      "TENANT_CONFLICT",
    ],
    [
      "of several others than the header's",
      { headers: ["cookie", "login=pair", "x-tenant-id", "globex"] },
      "TENANT_CONFLICT",
    ],
    [
      "of a keyspace other than the header's",
      { path: "/x?user=both", headers: ["x-tenant-id", "ann"] },
      "TENANT_CONFLICT",
    ],
    ["that is there twice", { headers: ["cookie", "login=ann; login=ann"] }, "TENANT_CONFLICT"],
  ])("a name %s is refused, and no tenant is told", (_name, request, code) => {
    const refusal = read(request);
    expect(refusal).toMatchObject({ kind: "refused", code });
    expect(JSON.stringify({ ...refusal, named: [] })).not.toMatch(/acme|globex|initech|ann/);
  });
});

describe("a host that is no tenant's", () => {
  const sources = [{ host: "{tenant}.cells.test" }, { header: "x-tenant-id" }];
  const placed = new Set(["acme", "globex"]);
  const named = (hostname: string, header?: string) => {
    const headers = header === undefined ? [] : ["X-Tenant-Id", header];
    const isPlaced = ({ tenant }: { readonly tenant: string }) => placed.has(tenant);
    const found = identify({ hostname, path: "/", headers }, sources, () => [], noTokens, isPlaced);
    return found.kind === "tenant" ? found.tenant : found.code;
  };
  test("is only a host beside a source that names a tenant which is placed", () => {
    expect(named("api.cells.test", "acme")).toBe("acme");
    expect(named("a.b.cells.test", "globex")).toBe("globex");
  });
  test("is a tenant's name where nothing else is said", () => {
    expect(named("api.cells.test")).toBe("api");
  });
  test("does not settle what two tenants, or two strangers, are named for", () => {
    expect(named("acme.cells.test", "globex")).toBe("TENANT_CONFLICT");
    expect(named("acme.cells.test", "nobody")).toBe("TENANT_CONFLICT");
    expect(named("api.cells.test", "nobody")).toBe("TENANT_CONFLICT");
  });
});
