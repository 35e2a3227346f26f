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
  const closing = gate.close(key).then((end) => {
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
  expect(await gate.close(key)).toBe("drained");
  gate.open(key);
  expect(gate.isClosed(key)).toBe(false);
});

test("an aborted move opens the gate, and who waited is told so", async () => {
  const gate = new Gate();
  gate.enter(key);
  const closing = gate.close(key);
  gate.open(key);
  expect(await closing).toBe("reopened");
});

test("an exchange that turns out to have no end of its own is cut, too: now, if it is late", async () => {
  const gate = new Gate();
  const [early, late] = [gate.enter(key), gate.enter(key)];
  early.endBy(() => early.leave());
  const closing = gate.close(key);
  expect(gate.inFlightOf(key)).toBe(1);
  late.endBy(() => late.leave());
  expect(await closing).toBe("drained");
  expect(gate.tunnelKeys()).toEqual([]);
});

test("upgraded connections are cut when their key closes, so that closing can end", async () => {
  const gate = new Gate();
  const ticket = gate.enter(key, () => ticket.leave());
  expect(gate.tunnelKeys()).toEqual([key]);
  expect(await gate.close(key)).toBe("drained");
  expect(gate.inFlightOf(key)).toBe(0);
});
