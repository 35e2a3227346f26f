/** Seats: never more than there are, never a queue without end, and each comes back exactly once. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { systemClock } from "../clock.ts";
import { type SeatVerdict, Slots } from "./slots.ts";

const never = new AbortController().signal;
const create = (inFlightMax: number, pendingMax: number, queueMs: number = 10_000) =>
  new Slots(systemClock, { inFlightMax, pendingMax, queueMs });

test("beyond seats and queue there is a refusal, at once", async () => {
  const slots = create(1, 1);
  expect(slots.take(never)).toBe("taken");
  const waiting = slots.take(never);
  expect(slots.take(never)).toBe("queue-full");
  expect([slots.inFlight, slots.pending]).toEqual([1, 1]);
  slots.give();
  expect(await waiting).toBe("taken");
  expect([slots.inFlight, slots.pending]).toEqual([1, 0]);
  slots.give();
  expect(slots.inFlight).toBe(0);
});

test("a seat given back goes to the oldest who waits, and nobody overtakes", async () => {
  const slots = create(1, 3);
  slots.take(never);
  const order: number[] = [];
  const waiting = [0, 1, 2].map(async (nth) => {
    await slots.take(never);
    order.push(nth);
  });
  slots.give();
  // The seat is promised already: who comes now has to wait, or be refused.
  expect(slots.inFlight).toBe(1);
  expect(slots.take(AbortSignal.abort())).toBe("client-gone");
  await waiting[0];
  slots.give();
  slots.give();
  await Promise.all(waiting);
  expect(order).toEqual([0, 1, 2]);
});

test("waiting ends by time and by the client, without a seat", async () => {
  const slots = create(1, 2, 20);
  slots.take(never);
  const client = new AbortController();
  const gone = slots.take(client.signal);
  const late = slots.take(never);
  client.abort();
  expect([await gone, await late]).toEqual(["client-gone", "queue-timeout"]);
  expect([slots.inFlight, slots.pending]).toEqual([1, 0]);
});

test("whatever happens, seats taken and given agree", async () => {
  const steps = fc.array(fc.constantFrom("take", "give", "leave"), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const slots = create(2, 3);
      let held = 0;
      const clients: AbortController[] = [];
      for (const step of list) {
        if (step === "take") {
          const client = new AbortController();
          clients.push(client);
          void Promise.resolve(slots.take(client.signal)).then((verdict: SeatVerdict) => {
            if (verdict === "taken") held += 1;
          });
        } else if (step === "give" && held > 0) {
          held -= 1;
          slots.give();
        } else if (step === "leave") clients.pop()?.abort();
        await Promise.resolve().then(() => {});
        await Promise.resolve().then(() => {});
        expect(slots.inFlight).toBe(held);
        expect(slots.inFlight).toBeLessThanOrEqual(2);
        expect(slots.pending).toBeLessThanOrEqual(3);
        if (slots.pending > 0) expect(slots.inFlight).toBe(2);
      }
      for (const client of clients) client.abort();
    }),
  );
});
