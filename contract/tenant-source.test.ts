/** Tokens as a tenant source: what may be configured, and what never. */
import { describe, expect, test } from "vitest";
import { tenantSourceSchema, tokenSourceName } from "./tenant-source.ts";

const jwt = { claim: "org.id", issuer: "https://login.test", jwks: "https://login.test/keys" };
const accepts = (change: object) =>
  tenantSourceSchema.safeParse({ jwt: { ...jwt, ...change } }).success;

describe("a token source", () => {
  test.each<object>([
    {},
    { jwks: "http://keys.internal:8080/jwks.json" },
    { jwks: "file:/etc/keys.json" },
    { algorithms: ["RS256", "EdDSA"], audience: ["a", "b"], type: "at+jwt" },
    { header: "x-identity" },
    { cookie: "session" },
  ])("may be %j", (change) => {
    expect(accepts(change)).toBe(true);
  });

  test.each<object>([
    { algorithms: ["none"] },
    { algorithms: ["HS256"] },
    { algorithms: ["RS256", "HS512"] },
    { algorithms: [] },
    { issuer: "" },
    { issuer: undefined },
    { jwks: "ftp://login.test/keys" },
    { jwks: "https://user:secret@login.test/keys" },
    { jwks: "keys.json" },
    { jwks: "file:" },
    { header: "x-a", cookie: "b" },
    { jku: "https://login.test/keys" },
  ])("may not be %j", (change) => {
    expect(accepts(change)).toBe(false);
  });

  test("is named for people by claim and place", () => {
    expect(tokenSourceName(jwt)).toBe("claim org.id of the token in header authorization");
    expect(tokenSourceName({ ...jwt, cookie: "s" })).toBe("claim org.id of the token in cookie s");
  });
});
