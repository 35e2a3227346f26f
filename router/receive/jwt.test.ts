/** Tenants named by tokens: a router in this process, an issuer that publishes keys over HTTP. */
import { createHmac } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { JWTPayload } from "jose";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { startControlPlane, tableOf } from "../../table/table.fixture.ts";
import { startCell } from "../fleet.fixture.ts";
import { adminJson, ask, codeOf, createBench, metric, of, until } from "../running.fixture.ts";
import {
  type Issuer,
  type IssuerKey,
  inSeconds,
  issuerName,
  makeIssuerKey,
  startIssuer,
  tokenOf,
} from "./jwt.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

let first: IssuerKey;
let second: IssuerKey;
let rsa: IssuerKey;
let stranger: IssuerKey;
beforeAll(async () => {
  [first, second, rsa, stranger] = await Promise.all([
    makeIssuerKey("key-1"),
    makeIssuerKey("key-2"),
    makeIssuerKey("key-rsa", "RS256"),
    makeIssuerKey("key-1"),
  ]);
});

const bench = createBench();

async function issuing(...keys: readonly IssuerKey[]): Promise<Issuer> {
  const issuer = await startIssuer(keys);
  bench.closers.push(issuer.close);
  return issuer;
}

const quick = { jwksCooldownMs: 100, jwksRefreshMs: 1000 };

/** Two cells that say who they are; acme lives in a, globex in b. */
async function routing(source: object, more: object = {}, flags: object = quick) {
  const seen: string[] = [];
  const cell = (name: string) =>
    bench.startApp((req, res) => {
      seen.push(`${name} ${req.headers["x-tenant-id"]} ${req.headers.authorization ?? "-"}`);
      res.end(name);
    });
  const table = {
    tenantKey: [{ jwt: { claim: "tenant", issuer: issuerName, audience: "api", ...source } }],
    cells: { a: { endpoints: [await cell("a")] }, b: { endpoints: [await cell("b")] } },
    tenants: { acme: "a", globex: "b" },
    ...more,
  };
  const { router, lines } = await bench.startStatic(table, { ...flags });
  const send = (token: string | undefined, headers: Record<string, string> = {}) =>
    ask(router.port, undefined, {
      headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
    });
  return { router, lines, seen, send, table };
}

const acme = (more: JWTPayload = {}): JWTPayload => ({ tenant: "acme", aud: "api", ...more });
const base64 = (value: object | string) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

describe("a verified token", () => {
  test("names the tenant, is verified once, and goes on to the application", async () => {
    const { jwks } = await issuing(first);
    const { router, send, seen } = await routing({ jwks });
    const token = await tokenOf(first, acme());
    for (let nth = 0; nth < 3; nth += 1) expect((await send(token)).text).toBe("a");
    expect((await send(await tokenOf(first, acme({ tenant: "globex" })))).text).toBe("b");
    expect(seen[0]).toBe(`a acme Bearer ${token}`);
    expect(await metric(router, 'cellfleet_router_tokens_total{result="verified"}')).toBe(2);
    expect(await metric(router, 'cellfleet_router_tokens_total{result="known"}')).toBe(2);
  });

  test("may be a cookie, hold a nested claim, and be signed with RSA", async () => {
    const { jwks } = await issuing(rsa);
    const { router } = await routing({ jwks, claim: "org.id", cookie: "session" });
    const by = async (claims: JWTPayload) =>
      ask(router.port, undefined, {
        headers: { cookie: `session=${await tokenOf(rsa, { aud: "api", ...claims })}` },
      });
    expect((await by({ org: { id: "globex" } })).text).toBe("b");
    // A claim of the whole name comes first, as namespaced claims are written.
    expect((await by({ "org.id": "acme", org: { id: "globex" } })).text).toBe("a");
    expect(codeOf(await by({ org: "acme" }))).toBe("400 TENANT_MISSING");
    expect(codeOf(await by({ org: { id: 7 } }))).toBe("400 TENANT_INVALID");
    expect(codeOf(await by({ org: { id: ["acme"] } }))).toBe("400 TENANT_INVALID");
    expect(codeOf(await by({ org: { id: "../acme" } }))).toBe("400 TENANT_INVALID");
    expect(codeOf(await by({ org: { id: null } }))).toBe("400 TENANT_MISSING");
  });

  test("that disagrees with another source is a conflict; one that agrees is not", async () => {
    const { jwks } = await issuing(first);
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks };
    const { send } = await routing({ jwks }, { tenantKey: [{ header: "x-tenant-id" }, { jwt }] });
    const token = await tokenOf(first, acme());
    expect((await send(token, { "x-tenant-id": "acme" })).text).toBe("a");
    expect(codeOf(await send(token, { "x-tenant-id": "globex" }))).toBe("400 TENANT_CONFLICT");
    expect((await send(undefined, { "x-tenant-id": "globex" })).text).toBe("b");
    // Other credentials stand in the same header, and are none of ours.
    const basic = { authorization: "Basic dTpw", "x-tenant-id": "globex" };
    expect((await send(undefined, basic)).text).toBe("b");
  });

  test("is nothing that explain can be asked with, and it says so", async () => {
    const { jwks } = await issuing(first);
    const { router } = await routing({ jwks });
    const { error } = await adminJson(router, "/explain?host=api.test&path=/");
    expect(error).toMatchObject({ code: "TENANT_MISSING" });
    expect(error.details.trace[0]).toBe(
      "claim tenant of the token in header authorization: no token is verified here, so it counts as absent",
    );
  });

  test("of several issuers in one place is judged by its own", async () => {
    const one = await issuing(first);
    const two = await issuing(second);
    const other = { claim: "org", issuer: "https://other.test", jwks: two.jwks };
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks: one.jwks };
    const { send } = await routing({}, { tenantKey: [{ jwt }, { jwt: other }] });
    expect((await send(await tokenOf(first, acme()))).text).toBe("a");
    const theirs = { iss: "https://other.test", org: "globex", tenant: "acme", aud: "api" };
    expect((await send(await tokenOf(second, theirs))).text).toBe("b");
    // Signed by the second, in the name of the first.
    expect(codeOf(await send(await tokenOf(second, acme())))).toBe("401 TENANT_TOKEN_INVALID");
  });

  test("is forgotten at its end", async () => {
    const { jwks } = await issuing(first);
    const { router, send } = await routing({ jwks });
    // Within the tolerance for clocks it is verified anew each time, never known.
    const token = await tokenOf(first, acme({ exp: inSeconds(-5) }));
    for (let nth = 0; nth < 2; nth += 1) expect((await send(token)).text).toBe("a");
    expect(await metric(router, 'cellfleet_router_tokens_total{result="known"}')).toBe(0);
  });
});

/** Each is refused, whatever else names a tenant; `reason` is that of the metric. */
const bad: ReadonlyArray<readonly [string, string, (issuer: Issuer) => string | Promise<string>]> =
  [
    ["expired", "expired", () => tokenOf(first, acme({ exp: inSeconds(-60) }))],
    ["not valid yet", "not-yet", () => tokenOf(first, acme({ nbf: inSeconds(300) }))],
    ["without an end", "claims", () => tokenOf(first, { ...acme(), exp: undefined as never })],
    ["of another issuer", "issuer", () => tokenOf(first, acme({ iss: "https://evil.test" }))],
    ["for another audience", "audience", () => tokenOf(first, acme({ aud: "other" }))],
    ["of another type", "type", () => tokenOf(first, acme(), { typ: "logout+jwt" })],
    ["signed by a stranger with a known key id", "signature", () => tokenOf(stranger, acme())],
    ["with a key id that nobody has", "key-unknown", () => tokenOf(stranger, acme(), { kid: "x" })],
    ["no token at all", "malformed", () => "sk_live_0123456789"],
    ["too large", "too-large", () => tokenOf(first, acme({ more: "x".repeat(8192) }))],
    [
      "with its payload changed",
      "signature",
      async () => {
        const [head, , signature] = (await tokenOf(first, acme())).split(".");
        const claims = acme({ iss: issuerName, exp: inSeconds(60) });
        return `${head}.${base64(claims)}.${signature}`;
      },
    ],
    [
      "without a signature (none)",
      "algorithm",
      () => {
        const claims = acme({ iss: issuerName, exp: inSeconds(60) });
        return `${base64({ alg: "none" })}.${base64(claims)}.`;
      },
    ],
    [
      "with the public key as a shared secret (HS256)",
      "algorithm",
      ({ published: [key] }) => {
        const claims = acme({ iss: issuerName, exp: inSeconds(60) });
        const signed = `${base64({ alg: "HS256", kid: "key-1" })}.${base64(claims)}`;
        const secret = JSON.stringify(key);
        return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
      },
    ],
    [
      "with a key of its own in its head",
      "signature",
      async () => {
        const [, payload, signature] = (await tokenOf(stranger, acme())).split(".");
        const head = { alg: "ES256", kid: "key-1", jwk: stranger.jwk, jku: "http://evil.test/" };
        return `${base64(head)}.${payload}.${signature}`;
      },
    ],
  ];

describe("a token is refused that is", () => {
  test.each(bad)("%s", async (_what, reason, make) => {
    const issuer = await issuing(first);
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks: issuer.jwks };
    const { router, send, seen, lines } = await routing(
      {},
      { tenantKey: [{ jwt }, { header: "x-tenant-id" }] },
    );
    const token = await make(issuer);
    for (const headers of [{}, { "x-tenant-id": "acme" }]) {
      const answer = await send(token, headers);
      expect(codeOf(answer)).toBe("401 TENANT_TOKEN_INVALID");
      expect(answer.headers["www-authenticate"]).toBe('Bearer error="invalid_token"');
      expect(answer.text).not.toContain(token);
    }
    expect(seen).toEqual([]);
    expect(await metric(router, `cellfleet_router_tokens_total{result="${reason}"}`)).toBe(2);
    const [, payload = token] = token.split(".");
    expect(JSON.stringify(lines)).not.toContain(payload);
  });

  test.each([
    ["is not in the list of a source", ["PS256"], "RS256"],
    ["is not in the list that holds without one", undefined, "RS512"],
  ])(
    "signed with an algorithm that %s, by a key that would fit",
    async (_what, algorithms, alg) => {
      const key = await makeIssuerKey("key-rsa", alg);
      const { alg: _own, ...jwk } = key.jwk;
      const issuer = await issuing({ ...key, jwk });
      const { send, router } = await routing({ jwks: issuer.jwks, algorithms });
      expect(codeOf(await send(await tokenOf(key, acme())))).toBe("401 TENANT_TOKEN_INVALID");
      expect(await metric(router, 'cellfleet_router_tokens_total{result="algorithm"}')).toBe(1);
    },
  );

  test("given twice, even if both are the same", async () => {
    const { jwks } = await issuing(first);
    const { router, seen } = await routing({ jwks, header: "x-token" });
    const token = await tokenOf(first, acme());
    const twice = { "x-token": [token, token] as unknown as string };
    const answer = await ask(router.port, undefined, { headers: twice });
    expect(codeOf(answer)).toBe("400 TENANT_CONFLICT");
    expect(seen).toEqual([]);
  });
});

describe("the issuer's keys", () => {
  test("that are new are read when a token names one, and old ones go", async () => {
    const issuer = await issuing(first);
    const { router, send } = await routing({ jwks: issuer.jwks });
    const old = await tokenOf(first, acme());
    expect((await send(old)).text).toBe("a");
    issuer.published.splice(0, 1, second.jwk);
    await until(async () => expect((await send(await tokenOf(second, acme()))).text).toBe("a"));
    // Known a moment ago, but its key is gone.
    expect(codeOf(await send(old))).toBe("401 TENANT_TOKEN_INVALID");
    expect(await metric(router, 'cellfleet_router_tokens_total{result="known"}')).toBe(0);
  });

  test("are read at most once per cooldown, however many unknown keys are named", async () => {
    const issuer = await issuing(first);
    const slow = { jwksCooldownMs: 3_600_000, jwksRefreshMs: 86_400_000 };
    const { send } = await routing({ jwks: issuer.jwks }, {}, slow);
    expect((await send(await tokenOf(first, acme()))).text).toBe("a");
    const before = issuer.reads();
    const odd = await Promise.all(
      [1, 2, 3, 4, 5].map((nth) => tokenOf(stranger, acme(), { kid: `odd-${nth}` })),
    );
    await Promise.all(odd.map((token) => send(token)));
    expect(issuer.reads()).toBe(before);
  });

  test("stay while the issuer is gone, and refresh when it is back", async () => {
    const issuer = await issuing(first);
    const { router, send, lines } = await routing({ jwks: issuer.jwks });
    expect((await send(await tokenOf(first, acme()))).text).toBe("a");
    issuer.settings.silent = true;
    await until(async () =>
      expect(await metric(router, 'cellfleet_router_jwks_reads_total{result="failed"}')).toBe(2),
    );
    expect((await send(await tokenOf(first, acme()))).text).toBe("a");
    expect(of(lines, "jwks.failed")).toHaveLength(1);
    issuer.published.push(second.jwk);
    issuer.settings.silent = false;
    await until(async () => expect((await send(await tokenOf(second, acme()))).text).toBe("a"));
  });

  test("that were never read make no verdict", async () => {
    const issuer = await issuing(first);
    issuer.settings.silent = true;
    const { send } = await routing({ jwks: issuer.jwks });
    const token = await tokenOf(first, acme());
    expect(codeOf(await send(token))).toBe("503 TENANT_KEYS_UNAVAILABLE");
    issuer.settings.silent = false;
    await until(async () => expect((await send(token)).text).toBe("a"));
  });

  test("may come from a file; symmetric and private ones are not used", async () => {
    const path = join(bench.dir(), "keys.json");
    const secret = { kty: "oct", k: base64("secret"), kid: "s" };
    await writeFile(path, JSON.stringify({ keys: [secret, { ...first.jwk, d: "AAAA" }] }));
    const { send } = await routing({ jwks: `file:${path}` });
    expect((await send(await tokenOf(first, acme()))).text).toBe("a");
  });
});

describe("with a control plane", () => {
  test("a router that starts while issuer and control plane are gone verifies with its last keys", async () => {
    const placements = { acme: "cell-a 1" };
    const cell = await startCell("cell-a", () => placements);
    bench.closers.push(cell.close);
    const issuer = await issuing(first);
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks: issuer.jwks };
    const control = await startControlPlane(
      tableOf(1, placements, { "cell-a": [cell.url] }, "fleet-1", { tenantSources: [{ jwt }] }),
    );
    const send = async (port: number) =>
      ask(port, undefined, {
        headers: { authorization: `Bearer ${await tokenOf(first, acme())}` },
      });
    const { router } = await bench.startRemote(control.url, quick);
    await until(async () => expect((await send(router.port)).status).toBe(200));
    await router.close();
    await control.close();
    await issuer.close();
    const again = await bench.startRemote(control.url, quick);
    expect((await send(again.router.port)).text).toBe("answer of cell-a\n");
    expect(of(again.lines, "jwks.changed")[0]).toMatchObject({ from: "disk" });
  });

  test("a table that moves on while a token is verified does not make it pass", async () => {
    const placements = { acme: "cell-a 1" };
    const cell = await startCell("cell-a", () => placements);
    bench.closers.push(cell.close);
    const issuer = await issuing(first);
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    issuer.settings.held = held;
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks: issuer.jwks };
    const tenantSources = [{ jwt }, { header: "x-tenant-id" }];
    const cells = { "cell-a": [cell.url] };
    const control = await startControlPlane(
      tableOf(1, placements, cells, "fleet-1", { tenantSources }),
    );
    bench.closers.push(control.close);
    const { router } = await bench.startRemote(control.url, quick);
    const revision = async () => metric(router, "cellfleet_router_table_revision");
    await until(async () => expect(await revision()).toBe(1));
    const late = await tokenOf(first, acme({ exp: inSeconds(-60) }));
    const answer = ask(router.port, "acme", { headers: { authorization: `Bearer ${late}` } });
    await until(() => expect(issuer.reads()).toBeGreaterThan(0));
    control.changeNames({ tenantSources: structuredClone(tenantSources) });
    await until(async () => expect(await revision()).toBe(2));
    release();
    expect(codeOf(await answer)).toBe("401 TENANT_TOKEN_INVALID");
    expect(cell.seen).toEqual([]);
  });

  test("a cell in pass-through takes what cannot be verified, counted, unless it may be another's", async () => {
    const issuer = await issuing(first);
    const jwt = { claim: "tenant", issuer: issuerName, audience: "api", jwks: issuer.jwks };
    const app = await bench.startApp((req, res) => res.end(`old ${req.headers.authorization}`));
    const table = tableOf(1, { globex: "cell-b 1" }, {}, "fleet-1", {
      tenantSources: [{ jwt }],
      cells: [
        { id: "cell-a", services: { default: { endpoints: [app] } }, stage: "pass-through" },
        { id: "cell-b", services: { default: { endpoints: [app] } } },
      ] as never,
    });
    const control = await startControlPlane(table);
    bench.closers.push(control.close);
    const { router } = await bench.startRemote(control.url, quick);
    const send = (token: string) =>
      ask(router.port, undefined, { headers: { authorization: `Bearer ${token}` } });
    await until(async () => expect((await send("opaque")).text).toBe("old Bearer opaque"));
    const late = { aud: "api", exp: inSeconds(-60) };
    expect((await send(await tokenOf(first, { ...late, tenant: "initech" }))).status).toBe(200);
    expect(codeOf(await send(await tokenOf(first, { ...late, tenant: "globex" })))).toBe(
      "401 TENANT_TOKEN_INVALID",
    );
    const series = 'cellfleet_router_would_refuse_total{code="TENANT_TOKEN_INVALID"}';
    expect(await metric(router, series)).toBe(2);
  });
});
