/** Hostile input: typed errors, an audit entry where due, nothing changed. */
import { connect } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  acceptedSchema,
  auditEntrySchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  list,
  tenantSchema,
  tokenSchema,
} from "../contract/control-api.ts";
import { errorBodySchema, errorTable, isErrorCode } from "../contract/errors.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import {
  adminSecret,
  type FakeProvider,
  finish,
  type Plane,
  startFakeProvider,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let plane: Plane;
let provider: FakeProvider;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("hostile");
  provider = await startFakeProvider(() => plane.url);
  plane = await startPlane(url, { providerUrl: provider.url });
  const { op } = await plane.send("POST", "/v1/cells", { id: "cell-01" }, acceptedSchema);
  await finish(plane, op);
});
afterAll(async () => {
  await provider?.stop();
  await plane?.close();
  await postgres?.stop();
});

type Refusal = { readonly status: number; readonly code: string; readonly message: string };

/** Every refusal has the house's shape, its own status, and the code in the header too. */
async function refusal(response: Response): Promise<Refusal> {
  const { error } = errorBodySchema.parse(await response.json());
  if (!isErrorCode(error.code)) throw new Error(`${error.code} is not in the table`);
  expect(response.headers.get("x-cellfleet-error")).toBe(error.code);
  expect(response.status).toBe(errorTable[error.code].httpStatus);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not come back.
  expect(error.message).not.toMatch(/[\u0000-\u001f]/);
  return { status: response.status, code: error.code, message: error.message };
}
const post = async (path: string, body: string | object, init: RequestInit = {}) =>
  refusal(
    await plane.raw(path, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    }),
  );

const state = async (): Promise<string> => {
  const tenants = await (await plane.raw("/v1/tenants?limit=1000")).text();
  const cells = await plane.get("/v1/cells", list(cellSchema));
  const usage = cells.items.map((one) => one.usage);
  const ops = await (await plane.raw("/v1/ops")).text();
  return JSON.stringify({ tenants, usage, ops });
};
const entries = async (): Promise<number> =>
  (await plane.get("/v1/audit/verify", auditVerdictSchema)).entries;

describe("bodies", () => {
  let before: string;
  let written: number;
  beforeEach(async () => {
    before = await state();
    written = await entries();
  });
  const unchanged = async () => {
    expect(await state()).toBe(before);
    expect(await entries()).toBe(written);
  };

  test.each([
    ['{"id": acme}', 7],
    ['{"id": "acme"', 13],
    ['{"id": "acme",}', 14],
    ["{'id': 1}", 1],
    ["[1, 2", 5],
    ["nul", 0],
    ['{"id": "a\nb"}', 7],
    ['{"a": 1} x', 9],
    ['{"a": 01}', 7],
  ])("malformed JSON %j is refused, with the position %i", async (body, position) => {
    const { code, message } = await post("/v1/tenants", body);
    expect(code).toBe("VALIDATION_FAILED");
    expect(message).toContain(`position ${position} `);
    await unchanged();
  });

  test.each([
    ["an array", "[]"],
    ["a number", "42"],
    ["nothing", ""],
    ["an unknown field", '{"id":"acme","admin":true}'],
    ["a wrong type", '{"id":17}'],
    ["a prototype", '{"__proto__":{"id":"acme"}}'],
    ["an endless number", '{"id":"acme","size":{"rps":1e999}}'],
    ["a negative size", '{"id":"acme","size":{"bytes":-1}}'],
    ["a fraction of a byte", '{"id":"acme","size":{"bytes":0.5}}'],
  ])("%s is no tenant", async (_name, body) => {
    expect((await post("/v1/tenants", body)).code).toBe("VALIDATION_FAILED");
    await unchanged();
  });

  test.each([
    ["SQL", "x'; drop table tenant; --"],
    ["HTML", "<script>alert(1)</script>"],
    ["a path", "../../etc/passwd"],
    ["a NUL", "a\u0000b"],
    ["a newline", "a\nb"],
    ["an escape sequence", "\u001b[31mred"],
    ["a direction mark", "a\u202eb"],
    ["a lone surrogate", "a\ud800"],
    ["a space", "a b"],
    ["nothing", ""],
    ["129 characters", "x".repeat(129)],
  ])("an id that holds %s is refused by its rule", async (_name, id) => {
    expect((await post("/v1/tenants", { id })).code).toBe("VALIDATION_FAILED");
    expect((await post("/v1/cells", { id })).code).toBe("VALIDATION_FAILED");
    const there = await plane.raw(`/v1/tenants/${encodeURIComponent(id.toWellFormed())}`);
    expect(there.ok).toBe(false);
    await unchanged();
  });

  test("control characters are refused wherever they stand", async () => {
    for (const body of [
      { id: "acme", reason: "a\u0000b" },
      { id: "acme", labels: { team: "a\u001bb" } },
      { id: "acme", labels: { "te\nam": "a" } },
    ]) {
      const { code, message } = await post("/v1/tenants", body);
      expect(code).toBe("VALIDATION_FAILED");
      expect(message).toContain("control characters");
    }
    await unchanged();
  });

  test("a name of 10 MB is refused before it is read into memory, and the client hears it", async () => {
    const { code } = await post("/v1/tenants", { id: "x".repeat(10_000_000) });
    expect(code).toBe("BODY_TOO_LARGE");
    await unchanged();
  });

  test("a thousand nested arrays, and bytes that are no text", async () => {
    const deep = `{"id":${"[".repeat(1000)}${"]".repeat(1000)}}`;
    expect((await post("/v1/tenants", deep)).message).toContain("nested");
    const bytes = await plane.raw("/v1/tenants", {
      method: "POST",
      body: new Uint8Array([0x22, 0xff, 0xfe, 0x22]),
    });
    expect((await refusal(bytes)).message).toContain("UTF-8");
    await unchanged();
  });

  test("every problem is named with its path", async () => {
    const { message } = await post("/v1/tenants", { id: "a b", tier: "iron", size: { rps: -1 } });
    for (const path of ["id:", "tier:", "size.rps:"]) expect(message).toContain(path);
  });
});

describe("addresses", () => {
  test.each([
    ["GET", "/v1/nothing", "NOT_FOUND"],
    ["GET", "/", "NOT_FOUND"],
    ["PATCH", "/v1/tenants", "METHOD_NOT_ALLOWED"],
    ["DELETE", "/v1/cells/cell-01", "METHOD_NOT_ALLOWED"],
    ["GET", "/v1/tenants?limit=0", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?limit=1001", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?limit=1&limit=2", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?colour=red", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?__proto__=1", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?cursor=%%%", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?cursor=AAAA", "VALIDATION_FAILED"],
    ["GET", "/v1/audit?cursor=Zm9v", "VALIDATION_FAILED"],
    ["GET", "/v1/events?cursor=Zm9v", "VALIDATION_FAILED"],
    ["GET", "/v1/ops?cursor=AAAA", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants?prefix=%00", "VALIDATION_FAILED"],
    ["GET", "/v1/tenants/nobody", "TENANT_UNKNOWN"],
    ["GET", "/v1/tenants/a%00b", "VALIDATION_FAILED"],
    ["GET", "/v1/cells/cell-02", "CELL_UNKNOWN"],
    ["GET", "/v1/ops/op_nothing", "OP_UNKNOWN"],
    ["GET", "/v1/keyspaces/nothing", "KEYSPACE_UNKNOWN"],
    ["GET", "/v1/route/resolve", "TENANT_MISSING"],
    ["GET", "/v1/route/resolve?tenant=%3Cb%3E", "TENANT_INVALID"],
    ["DELETE", "/v1/tokens/tok-nothing", "TOKEN_UNKNOWN"],
    ["DELETE", "/v1/overrides/default%2Ftenant%2Facme", "NOT_FOUND"],
  ])("%s %s is %s", async (method, path, code) => {
    expect((await refusal(await plane.raw(path, { method }))).code).toBe(code);
  });

  test.each([
    [
      "a Host header that is none",
      "GET /livez HTTP/1.1\r\nHost: a b<c>\r\nConnection: close\r\n\r\n",
    ],
    [
      "a target with spaces of its own",
      "GET /%zz%20?%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
    ["no HTTP at all", "\u0016\u0003\u0001 hello\r\n\r\n"],
  ])("%s ends neither the process nor the truth", async (_name, bytes) => {
    const { hostname, port } = new URL(plane.url);
    const answer = await new Promise<string>((resolve, reject) => {
      const chunks: Buffer[] = [];
      const socket = connect(Number(port), hostname, () => socket.write(bytes, "latin1"));
      socket.on("data", (chunk) => chunks.push(chunk));
      socket.on("close", () => resolve(Buffer.concat(chunks).toString("utf8")));
      socket.on("error", reject);
    });
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect((await plane.raw("/livez", {}, null)).status).toBe(200);
  });

  test("what was meant is suggested", async () => {
    const response = await plane.raw("/v1/cells/cell-1");
    const { error } = errorBodySchema.parse(await response.json());
    expect(error.next_steps).toContain("Did you mean cell-01?");
  });

  test("names that look like SQL patterns find nothing by accident", async () => {
    const found = await plane.get("/v1/tenants?prefix=%25", list(tenantSchema));
    expect(found.items).toEqual([]);
  });
});

describe("tokens", () => {
  const make = async (body: object): Promise<string> =>
    (await plane.send("POST", "/v1/tokens", body, createdTokenSchema)).secret;
  const as = async (secret: string | null, path: string, init: RequestInit = {}) =>
    refusal(await plane.raw(path, init, secret));

  test.each([
    ["none", null],
    ["a wrong one", "cft_0000"],
    ["an empty one", ""],
    ["an endless one", "x".repeat(5000)],
    ["the hash of a right one", "d".repeat(64)],
  ])("%s is UNAUTHENTICATED", async (_name, secret) => {
    const before = await entries();
    expect((await as(secret, "/v1/cells")).code).toBe("UNAUTHENTICATED");
    const response = await plane.raw("/v1/cells", {}, secret);
    expect(response.headers.get("www-authenticate")).toContain("Bearer");
    expect(await entries()).toBe(before);
  });

  test("an expired one is TOKEN_EXPIRED, a revoked one UNAUTHENTICATED", async () => {
    const created = await plane.send(
      "POST",
      "/v1/tokens",
      { name: "short", role: "viewer", ttlSeconds: 1 },
      createdTokenSchema,
    );
    let code = "";
    while (code !== "TOKEN_EXPIRED") {
      const response = await plane.raw("/v1/cells", {}, created.secret);
      if (!response.ok) code = (await refusal(response)).code;
    }
    const secret = await make({ name: "gone", role: "viewer" });
    const { items } = await plane.get("/v1/tokens", list(tokenSchema));
    const gone = items.find(({ name }) => name === "gone");
    expect((await plane.raw(`/v1/tokens/${gone?.id}`, { method: "DELETE" })).status).toBe(202);
    expect((await as(secret, "/v1/cells")).code).toBe("UNAUTHENTICATED");
  });

  test("a viewer changes nothing, and the attempt is in the audit log", async () => {
    const secret = await make({ name: "reader", role: "viewer" });
    const before = await entries();
    const create = { method: "POST", body: '{"id":"acme"}' };
    expect((await as(secret, "/v1/tenants", create)).code).toBe("FORBIDDEN");
    expect((await as(secret, "/v1/cells/cell-01/kill", { method: "POST" })).code).toBe("FORBIDDEN");
    expect((await as(secret, "/v1/tokens")).code).toBe("FORBIDDEN");
    expect((await plane.raw("/v1/cells", {}, secret)).status).toBe(200);
    expect(await entries()).toBe(before + 2);
    const { items } = await plane.get("/v1/audit?limit=2", list(auditEntrySchema));
    expect(items).toMatchObject([
      { action: "cell.kill", object: "cell-01", outcome: "FORBIDDEN", role: "viewer" },
      { action: "tenant.create", outcome: "FORBIDDEN", role: "viewer" },
    ]);
  });

  test("an operator makes no tokens; machine roles reach only what machines need, as themselves", async () => {
    const operator = await make({ name: "op", role: "operator" });
    const body = JSON.stringify({ name: "more", role: "admin" });
    expect((await as(operator, "/v1/tokens", { method: "POST", body })).code).toBe("FORBIDDEN");
    const agent = await make({ name: "a", role: "agent", subject: "cell-01" });
    const router = await make({ name: "r", role: "router", subject: "router-1" });
    for (const secret of [agent, router]) {
      for (const path of ["/v1/cells", "/v1/status", "/v1/tenants/acme", "/v1/audit"]) {
        expect((await as(secret, path)).code).toBe("FORBIDDEN");
      }
      const create = { method: "POST", body: '{"id":"acme"}' };
      expect((await as(secret, "/v1/tenants", create)).code).toBe("FORBIDDEN");
    }
    expect((await as(router, "/v1/machine/agent/sync", { method: "POST" })).code).toBe("FORBIDDEN");
    expect((await as(router, "/v1/machine/agent/table-sync", { method: "POST" })).code).toBe(
      "FORBIDDEN",
    );
    expect((await as(agent, "/v1/machine/router/sync", { method: "POST" })).code).toBe("FORBIDDEN");
    expect((await as(adminSecret, "/v1/machine/routing-table")).code).toBe("FORBIDDEN");
  });

  test("machine tokens need a subject, people's have none", async () => {
    for (const body of [
      { name: "x", role: "agent" },
      { name: "x", role: "router", subject: "Not A Router" },
      { name: "x", role: "viewer", subject: "cell-01" },
      { name: "x", role: "king" },
    ]) {
      expect((await post("/v1/tokens", body)).code).toBe("VALIDATION_FAILED");
    }
  });

  test("a secret is told once: not in lists, not in the audit log, not by replay", async () => {
    const headers = { "idempotency-key": "token-1" };
    const body = { name: "once", role: "viewer" };
    const { secret } = await plane.send("POST", "/v1/tokens", body, createdTokenSchema, headers);
    const again = await post("/v1/tokens", body, { headers });
    expect(again.code).toBe("STATE_CONFLICT");
    for (const path of ["/v1/tokens", "/v1/audit?limit=1000", "/v1/ops", "/v1/events"]) {
      expect(await (await plane.raw(path)).text()).not.toContain(secret);
    }
    const db = new pg.Client({ connectionString: postgres.url("hostile") });
    await db.connect();
    for (const table of ["token", "idempotency", "audit", "op", "event"]) {
      const { rows } = await db.query(`select * from cellfleet_control.${table}`);
      expect(JSON.stringify(rows)).not.toContain(secret);
    }
    await db.end();
  });

  test.each(["", "a b", "\u00e9", "x".repeat(201)])(
    "the idempotency key %j is refused",
    async (key) => {
      const before = await state();
      const request = {
        method: "POST",
        body: '{"id":"acme"}',
        headers: { "idempotency-key": key },
      };
      const response = await plane.raw("/v1/tenants", request);
      expect((await refusal(response)).code).toBe("VALIDATION_FAILED");
      expect(await state()).toBe(before);
    },
  );
});

describe("what needs no token says nothing secret", () => {
  test("the description and its page, HTML escaped", async () => {
    const page = await plane.raw("/docs", {}, null);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const html = await page.text();
    expect(html).not.toMatch(/<script/i);
    expect(html).not.toMatch(/https?:\/\//);
    const raw = await (await plane.raw("/openapi.json", {}, null)).json();
    const documentSchema = z.object({
      openapi: z.literal("3.1.0"),
      paths: z.record(z.string(), z.unknown()),
    });
    for (const path of Object.keys(documentSchema.parse(raw).paths)) expect(html).toContain(path);
    expect((await plane.raw("/livez", {}, null)).status).toBe(200);
  });
});

test("duplicate ids are refused, and audited", async () => {
  const create = { method: "POST", body: '{"id":"twin"}' };
  expect((await plane.raw("/v1/tenants", create)).status).toBe(202);
  const before = await entries();
  expect((await post("/v1/tenants", { id: "twin" })).code).toBe("TENANT_EXISTS");
  expect((await post("/v1/cells", { id: "cell-01", provider: "none" })).code).toBe("CELL_EXISTS");
  expect((await post("/v1/keyspaces", { name: "default", strategy: "directory" })).code).toBe(
    "KEYSPACE_EXISTS",
  );
  expect(await entries()).toBe(before + 3);
  expect(await plane.get("/v1/audit/verify", auditVerdictSchema)).toMatchObject({ ok: true });
});
