/** Waiting has bounds, ends for everybody, and keeps its order. */
import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { Hold, type HoldVerdict, holdEvents, holdStates, stepHold, type Ticket } from "./hold.ts";

const key = (name: string) => `default/tenant/${name}` as PlacementKey;
const never = new AbortController().signal;
let counted: HoldVerdict[] = [];
type Limits = ConstructorParameters<typeof Hold>[0]["limits"];
const create = (limits: Partial<Limits> = {}, clock: Clock = systemClock) => {
  counted = [];
  const sizes = { perKeyMax: 3, totalMax: 4, perKeyBytesMax: 1000, totalBytesMax: 1000 };
  const hold = new Hold({
    clock,
    limits: { holdMs: 5000, batchMax: 2, ...sizes, ...limits },
    onVerdict: (verdict) => counted.push(verdict),
  });
  holds.push(hold);
  return hold;
};
const holds: Hold[] = [];
afterEach(() => {
  for (const hold of holds.splice(0)) hold.release(() => true);
});
const wait = (hold: Hold, name: string, signal: AbortSignal = never, bytes: number = 1) =>
  hold.wait(key(name), hold.ticket(bytes), signal);

test("the states, drawn", () => {
  const lines = holdStates.flatMap((state) =>
    holdEvents
      .filter((event) => stepHold(state, event) !== state)
      .map((event) => `${state} --${event}--> ${stepHold(state, event)}`),
  );
  expect(lines).toEqual([
    "idle --arrived--> holding",
    "holding --released--> draining",
    "holding --emptied--> idle",
    "draining --held-again--> holding",
    "draining --emptied--> idle",
  ]);
});

describe("a held request", () => {
  test("goes on when its key is free, and not when another is", async () => {
    const hold = create();
    const acme = wait(hold, "acme");
    const globex = wait(hold, "globex");
    expect(hold.stateOf(key("acme"))).toBe("holding");
    hold.release((one) => one === key("acme"));
    expect(await acme).toBe("released");
    expect([hold.held, hold.stateOf(key("acme")), hold.stateOf(key("globex"))]).toEqual([
      1,
      "idle",
      "holding",
    ]);
    hold.release(() => true);
    expect(await globex).toBe("released");
    expect(counted).toEqual(["released", "released"]);
  });

  test("ends after its time, whether or not anybody releases it", async () => {
    const hold = create({ holdMs: 20 });
    const ticket = hold.ticket(1);
    expect(await hold.wait(key("acme"), ticket, never)).toBe("timeout");
    expect([hold.held, hold.stateOf(key("acme"))]).toEqual([0, "idle"]);
    // Its time is one, however often it waits.
    expect(await hold.wait(key("acme"), ticket, never)).toBe("timeout");
  });

  test("ends when its client goes", async () => {
    const hold = create();
    const client = new AbortController();
    const waiting = wait(hold, "acme", client.signal);
    expect(hold.held).toBe(1);
    client.abort();
    expect(await waiting).toBe("client-gone");
    expect(await wait(hold, "acme", client.signal)).toBe("client-gone");
    expect([hold.held, hold.heldBytes]).toEqual([0, 0]);
  });

  test("is one of a bounded number, per key and in all", async () => {
    const hold = create();
    const waiting = ["acme", "acme", "acme"].map((name) => wait(hold, name));
    expect(await wait(hold, "acme")).toBe("key-full");
    waiting.push(wait(hold, "globex"));
    expect(await wait(hold, "globex")).toBe("router-full");
    expect(hold.held).toBe(4);
    hold.release(() => true);
    expect(await Promise.all(waiting)).toEqual(waiting.map(() => "released"));
    expect(hold.held).toBe(0);
  });

  test("takes bounded memory, per key and in all, and gives it back", async () => {
    const hold = create({ perKeyBytesMax: 600, totalBytesMax: 1000 });
    const waiting = [wait(hold, "acme", never, 400), wait(hold, "globex", never, 500)];
    expect(await wait(hold, "acme", never, 201)).toBe("router-bytes-full");
    expect(await wait(hold, "globex", never, 101)).toBe("router-bytes-full");
    expect(hold.heldBytes).toBe(900);
    hold.release((one) => one === key("globex"));
    expect(await wait(hold, "acme", never, 201)).toBe("key-bytes-full");
    waiting.push(wait(hold, "acme", never, 200));
    hold.release(() => true);
    await Promise.all(waiting);
    expect(hold.heldBytes).toBe(0);
  });
});

describe("a release", () => {
  test("lets go in order, some at a time, and stops when the key is held again meanwhile", async () => {
    const hold = create({ perKeyMax: 10, totalMax: 10 });
    const order: number[] = [];
    const waiting = [0, 1, 2, 3].map(async (nth) => {
      await wait(hold, "acme");
      order.push(nth);
    });
    hold.release(() => true);
    expect(hold.stateOf(key("acme"))).toBe("draining");
    hold.release(() => false);
    expect(hold.stateOf(key("acme"))).toBe("holding");
    await vi.waitFor(() => expect(order).toEqual([0, 1]));
    await systemClock.sleep(20);
    expect([order, hold.held]).toEqual([[0, 1], 2]);
    hold.release(() => true);
    await Promise.all(waiting);
    expect(order).toEqual([0, 1, 2, 3]);
  });

  test("lets nobody overtake: who comes meanwhile goes last, who comes back has the old place", async () => {
    const hold = create({ perKeyMax: 10, totalMax: 10, batchMax: 1 });
    const order: string[] = [];
    const stand = async (name: string, ticket: Ticket) => {
      await hold.wait(key("acme"), ticket, never);
      order.push(name);
    };
    const tickets = [1, 2, 3].map(() => hold.ticket(1));
    const [first, second, third] = tickets as [Ticket, Ticket, Ticket];
    const waiting = [stand("second", second), stand("third", third)];
    hold.release(() => true);
    hold.release(() => false);
    await vi.waitFor(() => expect(order).toEqual(["second"]));
    waiting.push(stand("fourth", hold.ticket(1)), stand("first", first), stand("second", second));
    order.length = 0;
    hold.release(() => true);
    const last = hold.follow(key("acme"), hold.ticket(1), never).then(() => order.push("last"));
    await Promise.all([...waiting, last]);
    expect(order).toEqual(["first", "second", "third", "fourth", "last"]);
  });

  test("refuses nobody for the sake of order", async () => {
    const hold = create({ perKeyMax: 2, batchMax: 1 });
    const waiting = [wait(hold, "acme"), wait(hold, "acme")];
    hold.release(() => true);
    waiting.push(hold.follow(key("acme"), hold.ticket(1), never));
    expect(await hold.follow(key("acme"), hold.ticket(1), never)).toBe("released");
    expect(await Promise.all(waiting)).toEqual(["released", "released", "released"]);
    expect(await hold.follow(key("acme"), hold.ticket(1), never)).toBe("released");
  });

  test("ends what waits for news where news came, and nothing else", async () => {
    const hold = create();
    const listen = (isOver: () => boolean, ms: number = 5000) =>
      hold.listen(key("acme"), hold.ticket(1), systemClock.monotonicMs() + ms, never, isOver);
    let isNews = false;
    const waiting = listen(() => isNews);
    const vain = listen(() => false, 30);
    hold.release(() => true);
    expect(hold.held).toBe(2);
    isNews = true;
    hold.release(() => true);
    expect([await waiting, await vain]).toEqual(["released", "timeout"]);
    expect(hold.held).toBe(0);
  });
});

/** Time that a property moves on by itself. */
function stepped() {
  let nowMs = 0;
  const due = new Set<{ readonly atMs: number; readonly run: () => void }>();
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: (ms, run) => {
      const timer = { atMs: nowMs + ms, run };
      due.add(timer);
      return { cancel: () => void due.delete(timer) };
    },
    sleep: async () => {},
  };
  const pass = (ms: number) => {
    const untilMs = nowMs + ms;
    for (;;) {
      const [next] = [...due].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      due.delete(next);
      nowMs = Math.max(nowMs, next.atMs);
      next.run();
    }
    nowMs = untilMs;
  };
  return { clock, pass, timers: () => due.size };
}

/** One key, a table that holds it or not, and requests that obey the table. */
class Model {
  readonly time = stepped();
  readonly hold = create(
    { perKeyMax: 20, totalMax: 20, batchMax: 1, holdMs: 500 },
    this.time.clock,
  );
  readonly all: Array<Promise<HoldVerdict>> = [];
  readonly overtaken: string[] = [];
  readonly #clients: AbortController[] = [];
  #isFree = true;
  #last = 0;

  readonly does = {
    arrive: () => this.#stand(this.#isFree ? "follow" : "wait"),
    hold: () => this.tell(false),
    free: () => this.tell(true),
    /** The table changed and nobody was told. */
    unsaid: () => {
      this.#isFree = true;
    },
    time: () => this.time.pass(1),
    leave: () => this.#clients.shift()?.abort(),
  };

  tell(isFree: boolean): void {
    this.#isFree = isFree;
    this.hold.release(() => isFree);
  }

  #stand(kind: "wait" | "follow"): void {
    const client = new AbortController();
    const ticket = this.hold.ticket(1);
    this.#clients.push(client);
    const verdict = this.hold[kind](key("acme"), ticket, client.signal);
    this.all.push(verdict);
    void verdict.then((one) => {
      if (one !== "released" || kind !== "wait") return;
      if (ticket.nth < this.#last) this.overtaken.push(`${ticket.nth} after ${this.#last}`);
      this.#last = ticket.nth;
    });
  }
}

test("however holds and releases come, or are lost, all waits end: by the table's last word or by their time", async () => {
  const step = fc.constantFrom<keyof Model["does"]>(
    ...(["arrive", "arrive", "hold", "free", "unsaid", "time", "leave"] as const),
  );
  const steps = fc.array(step, { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(steps, fc.boolean(), async (all, endsFree) => {
      const model = new Model();
      for (const one of all) {
        model.does[one]();
        await Promise.resolve();
      }
      if (endsFree) model.tell(true);
      // A few turns for the queue, or the whole time of a wait that nobody ends.
      model.time.pass(endsFree ? 100 : 500);
      await Promise.all(model.all);
      const { hold, time, overtaken } = model;
      expect([hold.held, hold.heldBytes, hold.stateOf(key("acme"))]).toEqual([0, 0, "idle"]);
      expect([time.timers(), overtaken]).toEqual([0, []]);
    }),
    { numRuns: 300 },
  );
});
