import { expect, test } from "vitest";
import { parse } from "yaml";
import { must } from "../../runtime/assert.ts";
import { type LintRules, lintEndpoints } from "./lint.ts";
import { readEndpoints } from "./openapi.ts";

const document = parse(`
openapi: 3.1.0
security: [{ token: [] }]
paths:
  /orders:
    parameters: [{ $ref: "#/components/parameters/Tenant" }]
    get: {}
    post: { security: [] }
  /orders/{id}: { get: { security: [], parameters: [{ in: header, name: X-Tenant-Id }] } }
  /login: { post: { security: [] } }
  /hooks/{account}/stripe: { post: { security: [] } }
  /hooks/all/stripe: { post: { security: [] } }
  /health: { get: { security: [{}, { token: [] }] } }
  /keys: { get: { security: [{ key: [] }] } }
  /nothing: { get: { security: [] } }
  /loop: { get: { security: [], parameters: [{ $ref: "#/components/parameters/Loop" }] } }
  /far: { get: { security: [], parameters: [{ $ref: "https://elsewhere.test/x" }] } }
components:
  parameters:
    Tenant: { in: header, name: x-tenant-id, required: true }
    Loop: { $ref: "#/components/parameters/Loop" }
  securitySchemes:
    token: { type: http, scheme: Bearer }
    key: { type: apiKey, in: query, name: api_key }
`);
const rules: LintRules = {
  tenantSources: [
    { header: "X-Tenant-ID" },
    { path: "/hooks/{tenant}" },
    { query: "api_key", alias: "key" },
    { jwt: { claim: "org", issuer: "i", jwks: "https://issuer.test/keys" } },
  ],
  serviceRoutes: [{ pathPrefix: "/login", service: "login", class: "any-cell" }],
};
const verdicts = (given: unknown, by: LintRules = rules) =>
  Object.fromEntries(
    lintEndpoints(must(readEndpoints(given), "document"), by).map((one) => [one.id, one.verdict]),
  );

test("an endpoint is judged by what its requests carry", () => {
  expect(verdicts(document)).toEqual({
    "GET /orders": "named",
    "POST /orders": "named",
    "GET /orders/{id}": "may-be-missing",
    "POST /login": "no-tenant-needed",
    "POST /hooks/{account}/stripe": "named",
    "POST /hooks/all/stripe": "missing",
    "GET /health": "may-be-missing",
    "GET /keys": "named",
    "GET /nothing": "missing",
    "GET /loop": "missing",
    "GET /far": "missing",
  });
});

test("a server's host or path may hold the tenant", () => {
  const at = (...urls: string[]) => ({
    openapi: "3.0.3",
    servers: urls.map((url) => ({ url })),
    paths: { "/x": { get: {} } },
  });
  const byHost = { tenantSources: [{ host: "{tenant}.shop.test" }], serviceRoutes: [] };
  expect(verdicts(at("https://{customer}.shop.test:8443/"), byHost)).toEqual({
    "GET {customer}.shop.test/x": "named",
  });
  expect(verdicts(at("https://www.shop.test"), byHost)).toEqual({
    "GET www.shop.test/x": "missing",
  });
  expect(verdicts(at(), byHost)).toEqual({ "GET /x": "may-be-missing" });
  const byPath = { tenantSources: [{ path: "/t/{tenant}" }], serviceRoutes: [] };
  expect(verdicts(at("/t/{org}", "/"), byPath)).toEqual({
    "GET /t/{org}/x": "named",
    "GET /x": "missing",
  });
});

test("what is no OpenAPI 3 document has no endpoints", () => {
  for (const other of [undefined, null, 3, [], {}, { openapi: 3 }, { swagger: "2.0" }]) {
    expect(readEndpoints(other)).toBeUndefined();
  }
  expect(
    readEndpoints({ openapi: "3.1.0", paths: { "/x": { get: null, __proto__: {} } } }),
  ).toHaveLength(1);
});
