import { describe, expect, test } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { channels } from "./notify.ts";
import { createWakeHub } from "./wake-hub.ts";

const long = 60_000;

describe("long polls", () => {
  test("wake for their own topic, for their whole channel, and for nothing else", async () => {
    const hub = createWakeHub(systemClock);
    const woken: string[] = [];
    const wait = (name: string, topic: string) =>
      hub.wait(channels.op, topic, long).then(() => woken.push(name));
    const one = wait("one", "op_1");
    const two = wait("two", "op_2");
    const any = wait("any", "");
    hub.wake(channels.event, "");
    hub.wake(channels.op, "op_3");
    await any;
    expect(woken).toEqual(["any"]);
    hub.wake(channels.op, "op_1");
    await one;
    expect(woken).toEqual(["any", "one"]);
    hub.wake(channels.op, "");
    await two;
    expect(woken).toEqual(["any", "one", "two"]);
  });

  test("end with their time, and with who asked", async () => {
    const hub = createWakeHub(systemClock);
    await expect(hub.wait(channels.op, "op_1", 1)).resolves.toBeUndefined();
    const client = new AbortController();
    const waiting = hub.wait(channels.op, "op_1", long, client.signal);
    client.abort();
    await expect(waiting).resolves.toBeUndefined();
    const gone = hub.wait(channels.op, "op_1", long, AbortSignal.abort());
    await expect(gone).resolves.toBeUndefined();
  });
});
