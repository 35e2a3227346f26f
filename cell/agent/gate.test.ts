/** What the gate promises a move: after closing, nothing enters, and the last one out is told. */
import { expect, test } from "vitest";
import { Gate } from "./gate.ts";

const key = "default/tenant/acme";

test("closing resolves only when the last request in flight has left", async () => {
  const gate = new Gate();
  const first = gate.enter(key);
  const second = gate.enter(key);
  gate.enter("default/tenant/other");
  let ended: string | undefined;
  const closing = gate.close(key, "main").then((end) => {
    ended = end;
  });
  first.leave();
  first.leave(); // Leaving twice must not count for the other one.
  await Promise.resolve();
  expect(ended).toBeUndefined();
  expect(gate.inFlightOf(key)).toBe(1);
  second.leave();
  await closing;
  expect(ended).toBe("drained");
  expect(gate.isClosed(key)).toBe(true);
  expect(gate.inFlight).toBe(1);
});

test("closing an idle key is done at once, and opening it again lets requests in", async () => {
  const gate = new Gate();
  expect(await gate.close(key, "main")).toBe("drained");
  gate.open(key, "main");
  expect(gate.isClosed(key)).toBe(false);
});

test("an aborted move opens the gate, and who waited is told so", async () => {
  const gate = new Gate();
  gate.enter(key);
  const closing = gate.close(key, "main");
  gate.open(key, "main");
  expect(await closing).toBe("reopened");
});

test("a gate that two stores have closed is open when both have opened it", async () => {
  const gate = new Gate();
  await gate.close(key, "main");
  await gate.close(key, "billing");
  gate.open(key, "main");
  expect(gate.isClosed(key)).toBe(true);
  gate.open(key, "billing");
  gate.open(key, "billing");
  expect(gate.isClosed(key)).toBe(false);
});

test("what lasts is counted, and not waited for, from when it is known to last", async () => {
  const gate = new Gate();
  const [stream, plain] = [gate.enter(key), gate.enter(key)];
  let ended: string | undefined;
  const closing = gate.close(key, "main").then((end) => {
    ended = end;
  });
  plain.leave();
  await Promise.resolve();
  expect([ended, gate.drainingOf(key)]).toEqual([undefined, 1]);
  stream.last();
  stream.last();
  await closing;
  expect([ended, gate.drainingOf(key), gate.inFlightOf(key)]).toEqual(["drained", 0, 1]);
  expect(await gate.close(key, "main")).toBe("drained");
  stream.leave();
  expect([gate.drainingOf(key), gate.inFlightOf(key), gate.inFlight]).toEqual([0, 0, 0]);
});
