/** Signatures of routers at a gate: what counts, for how long, and how long a key is waited for. */
import { describe, expect, test } from "vitest";
import {
  requestText,
  type SignedRequest,
  signatureText,
  signedText,
} from "../../contract/request-signature.ts";
import { routerKeySchema } from "../../contract/router-key.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createMetrics } from "../../runtime/metrics.ts";
import { createSigner, generateKey, keyIdOf, signaturePurposes } from "../../runtime/signing.ts";
import { tableOf } from "../../table/table.fixture.ts";
import { createSignatureCheck } from "./router-signatures.ts";

const start = 1_800_000_000_000;

function makeRouter(name: string) {
  const { privateKey, publicKeys } = generateKey("key");
  const spki = publicKeys.keys[0]?.spki ?? "";
  const id = keyIdOf(spki);
  const signer = createSigner({ ...privateKey, id });
  return {
    key: routerKeySchema.parse({ router: name, id, spki }),
    sign: (request: SignedRequest, expiresMs = start + 60_000) => {
      const expiresSeconds = Math.floor(expiresMs / 1000);
      const text = signedText(id, expiresSeconds, requestText(request));
      const signature = signer.sign(signaturePurposes.request, text);
      return [signatureText({ keyId: id, expiresSeconds, signature })];
    },
  };
}
const one = makeRouter("router-1");
const two = makeRouter("router-2");

const request: SignedRequest = {
  ...{ fleet: "fleet-1", cell: "cell-a", routeClass: "tenant", service: "default" },
  tenant: { keyspace: "default", tenant: "acme" },
  placement: { key: "default/tenant/acme", epoch: 3 },
};
const naming = (...routers: readonly (typeof one)[]): TableState =>
  tableOf(1, {}, {}, "fleet-1", { routerKeys: routers.map(({ key }) => key) });

function checking(table?: TableState) {
  let nowMs = start;
  let wakeUp = () => {};
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: () => ({ cancel: () => {} }),
    sleep: (_ms, signal) =>
      new Promise((resolve) => {
        wakeUp = resolve;
        signal?.addEventListener("abort", () => resolve());
      }),
  };
  const counter = createMetrics().counter("verdicts", "For this test.");
  const { check, follow } = createSignatureCheck({ clock, counter });
  if (table !== undefined) follow(table);
  return {
    follow,
    check: (asked: SignedRequest, raw: readonly string[]) => check(asked, raw, false),
    wait: (asked: SignedRequest, raw: readonly string[]) => check(asked, raw, true),
    at: (ms: number) => {
      nowMs = start + ms;
    },
    runOut: () => wakeUp(),
  };
}

test("a router's signature is valid, again and again", () => {
  const { check } = checking(naming(one));
  const raw = one.sign(request);
  for (let nth = 0; nth < 3; nth += 1) expect(check(request, raw)).toBe("valid");
});

describe("a signature that was seen as valid is no use for", () => {
  test.each<readonly [string, Partial<SignedRequest>]>([
    ["another tenant", { tenant: { keyspace: "default", tenant: "globex" } }],
    ["another keyspace", { tenant: { keyspace: "other", tenant: "acme" } }],
    ["no tenant", { tenant: undefined }],
    ["another placement", { placement: { key: "default/tenant/globex", epoch: 3 } }],
    ["another epoch", { placement: { key: "default/tenant/acme", epoch: 4 } }],
    ["another cell", { cell: "cell-b" }],
    ["another class", { routeClass: "any-cell" }],
    ["another service", { service: "admin" }],
  ])("%s", (_what, change) => {
    const { check } = checking(naming(one));
    const raw = one.sign(request);
    expect(check(request, raw)).toBe("valid");
    expect(check({ ...request, ...change }, raw)).toBe("forged");
  });

  test("another fleet", () => {
    const raw = one.sign({ ...request, fleet: "fleet-2" });
    expect(checking(naming(one)).check(request, raw)).toBe("forged");
  });
});

test("it ends, also when it is remembered, and clocks may differ a little", () => {
  const { check, at } = checking(naming(one));
  const raw = one.sign(request);
  expect(check(request, raw)).toBe("valid");
  at(90_000);
  expect(check(request, raw)).toBe("valid");
  at(90_001);
  expect(check(request, raw)).toBe("expired");
  expect(checking(naming(one)).check(request, one.sign(request, start - 31_000))).toBe("expired");
  expect(checking(naming(one)).check(request, one.sign(request, start + 91_000))).toBe("too-long");
});

test.each([
  ["none", [], "missing"],
  ["two", [...one.sign(request), ...one.sign(request)], "malformed"],
  ["rubbish", ["v1.x.y.z"], "malformed"],
  ["one of a router that the table does not name", two.sign(request), "unknown-key"],
] as const)("%s is %s", (_what, raw, verdict) => {
  expect(checking(naming(one)).check(request, raw)).toBe(verdict);
});

test("a router that left the table takes with it what it has signed", () => {
  const { check, follow } = checking(naming(one, two));
  const raw = one.sign(request);
  expect(check(request, raw)).toBe("valid");
  follow(naming(two));
  expect(check(request, raw)).toBe("unknown-key");
  expect(check(request, two.sign(request))).toBe("valid");
});

describe("a key that the table does not name yet", () => {
  test("is waited for, and comes", async () => {
    const { wait, follow } = checking(naming(one));
    const verdict = wait(request, two.sign(request));
    follow(naming(one, two));
    expect(await verdict).toBe("valid");
  });

  test("is waited for, and another comes", async () => {
    const { wait, follow, runOut } = checking();
    const verdict = wait(request, two.sign(request));
    follow(naming(one));
    runOut();
    expect(await verdict).toBe("unknown-key");
  });

  test("makes no more requests wait than the limit", () => {
    const { wait } = checking(naming(one));
    const raw = two.sign(request);
    const all = Array.from({ length: 1000 }, () => wait(request, raw));
    expect(all.every((verdict) => verdict instanceof Promise)).toBe(true);
    expect(wait(request, raw)).toBe("unknown-key");
  });
});

test("a control plane that publishes no keys asks for no signatures", () => {
  const { check } = checking(tableOf(1, {}));
  expect(check(request, [])).toBe("no-keys");
  expect(checking().check(request, [])).toBe("no-table");
});
