/** Seats: never more than there are, never a queue without end, and each comes back exactly once. */
import fc from "fast-check";
import { expect, test, vi } from "vitest";
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
  await slots.take(never);
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
  await slots.take(never);
  const client = new AbortController();
  const gone = slots.take(client.signal);
  const late = slots.take(never);
  client.abort();
  expect([await gone, await late]).toEqual(["client-gone", "queue-timeout"]);
  expect([slots.inFlight, slots.pending]).toEqual([1, 0]);
});

/** Two turns of the microtask queue: a verdict has arrived where it will arrive. */
const settle = async (): Promise<void> => {
  await Promise.resolve();
  await Promise.resolve();
};

test("whatever happens, seats taken and given agree", async () => {
  const steps = fc.array(fc.constantFrom("take", "give", "leave"), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const slots = create(2, 3);
      let held = 0;
      const clients: AbortController[] = [];
      const note = (verdict: SeatVerdict) => {
        if (verdict === "taken") held += 1;
      };
      const act: Readonly<Record<string, () => void>> = {
        take: () => {
          const client = new AbortController();
          clients.push(client);
          void Promise.resolve(slots.take(client.signal)).then(note);
        },
        give: () => {
          if (held === 0) return;
          held -= 1;
          slots.give();
        },
        leave: () => clients.pop()?.abort(),
      };
      for (const step of list) {
        act[step]?.();
        await settle();
        expect(slots.inFlight).toBe(held);
        expect([slots.inFlight <= 2, slots.pending <= 3]).toEqual([true, true]);
        expect(slots.pending === 0 || slots.inFlight === 2).toBe(true);
      }
      for (const client of clients) client.abort();
    }),
  );
});

test("the greedy get no reserved seat and overtake nobody, and others find one while they fill the rest", async () => {
  const slots = new Slots(systemClock, {
    inFlightMax: 4,
    pendingMax: 4,
    queueMs: 60_000,
    reserve: 1,
  });
  const greedy = { greedy: true };
  const order: string[] = [];
  const wait = (name: string, wish = {}) =>
    void Promise.resolve(slots.take(never, wish)).then((verdict) =>
      order.push(`${name} ${verdict}`),
    );
  for (let nth = 0; nth < 3; nth += 1) expect(slots.take(never, greedy)).toBe("taken");
  for (let nth = 0; nth < 4; nth += 1) wait(`greedy-${nth}`, greedy);
  expect(slots.pending).toBe(3);
  expect(slots.take(never)).toBe("taken");
  wait("modest");
  expect(slots.take(never)).toBe("queue-full");
  slots.give();
  slots.give();
  slots.give();
  await vi.waitFor(() => expect(order.length).toBe(3));
  // The fourth seat stays free of them: one greedy one came in for two that were given back.
  expect(order).toEqual(["greedy-3 queue-full", "modest taken", "greedy-0 taken"]);
  expect([slots.inFlight, slots.pending]).toEqual([3, 2]);
});

test("time spent in another queue counts", async () => {
  const slots = new Slots(systemClock, { inFlightMax: 1, pendingMax: 1, queueMs: 60_000 });
  await slots.take(never);
  expect(await slots.take(never, { waitedMs: 60_000 })).toBe("queue-timeout");
});
