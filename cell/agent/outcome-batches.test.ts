/** Batches of outcomes: none is lost with a call, none is told as two. */
import { expect, test } from "vitest";
import { parseKeyspaceName, parseTenantId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { OutcomeBatches } from "./outcome-batches.ts";

const of = (tenant: string) => ({
  keyspace: must(parseKeyspaceName("default"), "keyspace"),
  tenant: must(parseTenantId(tenant), "tenant"),
  service: "default",
});

function start() {
  let nowMs = 0;
  const batches = new OutcomeBatches(() => nowMs);
  return { batches, pass: (ms: number) => (nowMs += ms) };
}

test("a batch is the same until it is answered; what comes meanwhile is in the next", () => {
  const { batches, pass } = start();
  batches.note(of("acme"), false);
  const first = batches.due();
  expect(first).toEqual({ number: 1, tenants: [{ ...of("acme"), requests: 1, failures: 0 }] });
  batches.note(of("acme"), true);
  pass(10_000);
  expect(batches.due()).toEqual(first);
  batches.reported(undefined);
  expect(batches.due()).toEqual(first);
  batches.reported(first);
  expect(batches.due()).toEqual({
    number: 2,
    tenants: [{ ...of("acme"), requests: 1, failures: 1 }],
  });
});

test("batches are ten seconds apart", () => {
  const { batches, pass } = start();
  expect(batches.due()).toBeUndefined();
  batches.note(of("acme"), false);
  batches.reported(batches.due());
  batches.note(of("acme"), false);
  pass(9999);
  expect(batches.due()).toBeUndefined();
  pass(1);
  expect(batches.due()?.number).toBe(2);
});

test("a batch is bounded, and the rest follows", () => {
  const { batches, pass } = start();
  for (let at = 0; at < 2500; at += 1) batches.note(of(`t${at}`), false);
  expect(batches.due()?.tenants).toHaveLength(2000);
  batches.reported(batches.due());
  pass(10_000);
  expect(batches.due()?.tenants).toHaveLength(500);
});
