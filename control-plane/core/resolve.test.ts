/** `route resolve` about fleets that read tokens: it cannot verify one, and says so. */
import { expect, test } from "vitest";
import { nameTenant } from "./resolve.ts";

const question = { tenant: undefined, keyspace: undefined, host: "acme.test", path: "/" };
const jwt = { claim: "org.id", issuer: "https://login.test", jwks: "https://login.test/keys" };

test("a token source counts as absent, and the claim is named", () => {
  const named = nameTenant(question, [{ jwt }, { host: "{tenant}.test" }], () => []);
  expect(named.tenant).toBe("acme");
  expect(named.trace).toEqual([
    "claim org.id of the token in header authorization: tokens are verified by routers alone, so it counts as absent",
    "host {tenant}.test: names acme",
  ]);
});
