/** How a listener ends: the table of phases, and what a client sees of each. */
import { Agent, request } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect as connectTls } from "node:tls";
import { expect, test, vi } from "vitest";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { createAuthority } from "../../runtime/tls/certificates.fixture.ts";
import { type DrainEvent, drainPhases, drainTransitions, stepDrain } from "./drain.ts";
import { createListenerBench, type Handler, ok, openRaw } from "./listener.fixture.ts";

const { start, closers } = createListenerBench();
const get = "GET / HTTP/1.1\r\nHost: acme.test\r\n\r\n";
const until = <T>(check: () => T | Promise<T>) =>
  vi.waitFor(check, { timeout: 25_000, interval: 5 });
const never = new AbortController().signal;

/** A clock on which the announcement lasts until it is told to end. */
const announceMs = 12_345;
function holdAnnouncement() {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const clock: Clock = {
    ...systemClock,
    sleep: (ms, signal) => (ms === announceMs ? ended : systemClock.sleep(ms, signal)),
  };
  return { clock, end };
}

test("the table", () => {
  expect(drainTransitions).toMatchInlineSnapshot(`
    {
      "announcing": {
        "announced": "stopping",
        "hurry": "cutting",
        "late": "cutting",
      },
      "cutting": {
        "empty": "over",
      },
      "over": {},
      "stopping": {
        "empty": "over",
        "hurry": "cutting",
        "late": "cutting",
      },
    }
  `);
});

test("every phase comes to its end, and none goes back", () => {
  const events: DrainEvent[] = ["announced", "empty", "late", "hurry"];
  for (const phase of drainPhases) {
    for (const event of events) {
      const next = drainPhases.indexOf(stepDrain(phase, event));
      expect(next).toBeGreaterThanOrEqual(drainPhases.indexOf(phase));
    }
  }
  expect(stepDrain(stepDrain("announcing", "hurry"), "empty")).toBe("over");
});

test("answers say that their connection ends; who comes later is served until nobody can", async () => {
  let finish: (() => void) | undefined;
  const announcement = holdAnnouncement();
  const serve: Handler = (req, res) => {
    if (req.url === "/") finish = () => void res.end("first");
    else res.end("more");
  };
  const { port, drain } = await start(serve, { clock: announcement.clock });
  const inFlight = openRaw(port, get);
  const idle = openRaw(port, get.replace("/", "/x"));
  await until(() => expect(idle.text()).toMatch(/keep-alive[\s\S]*more/));
  await until(() => expect(finish).toBeDefined());
  const over = drain({ announceMs, graceMs: 20_000 }, never);
  const late = openRaw(port, get.replace("/", "/late"));
  await late.closed;
  expect(late.text()).toMatch(/^HTTP\/1.1 200 OK[\s\S]*Connection: close[\s\S]*more/);
  // Idle connections are left alone for as long as their next request would be welcome.
  expect(idle.isClosed()).toBe(false);
  announcement.end();
  await idle.closed;
  expect(inFlight.isClosed()).toBe(false);
  finish?.();
  await Promise.all([over, inFlight.closed]);
  expect(inFlight.text()).toMatch(/^HTTP\/1.1 200 OK[\s\S]*Connection: close[\s\S]*first$/);
  const nobody = openRaw(port, get);
  await nobody.closed;
  expect(nobody.text()).toBe("");
});

test("answers under TLS say so too, also those that were asked for before", async () => {
  const authority = createAuthority();
  const { cert, key } = authority.issue(["acme.test"]);
  const shared = { cert, key, minVersion: "TLSv1.2" } as const;
  let finish: (() => void) | undefined;
  const { port, drain } = await start(
    (_req, res) => {
      finish = () => void res.end("first");
    },
    {
      protocol: "tls",
      certificates: {
        ...{ find: () => undefined, covers: () => true, shared: () => shared },
        ...{ onChange: () => {}, list: () => [], reload: async () => {}, close: async () => {} },
      },
    },
  );
  const client = connectTls({
    port,
    host: "127.0.0.1",
    ca: authority.cert,
    servername: "acme.test",
  });
  closers.push(() => client.destroy());
  let text = "";
  client.on("data", (chunk) => {
    text += chunk;
  });
  const closed = new Promise((resolve) => client.once("close", resolve));
  client.write(get);
  await until(() => expect(finish).toBeDefined());
  const over = drain({ announceMs: 0, graceMs: 20_000 }, never);
  finish?.();
  await Promise.all([over, closed]);
  expect(text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*Connection: close[\s\S]*first$/);
});

test("what is left at the end of the grace is cut, after last words", async () => {
  const said: string[] = [];
  const { port, drain } = await start(() => {}, {
    farewell: () => {
      said.push(hanging.isClosed() ? "late" : "in time");
    },
  });
  const hanging = openRaw(port, get);
  const tunnel = openRaw(
    port,
    get.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
  );
  await until(() => expect(tunnel.text()).toMatch(/ 101 /));
  await drain({ announceMs: 0, graceMs: 100 }, never);
  await Promise.all([hanging.closed, tunnel.closed]);
  expect([hanging.text(), ...said]).toEqual(["", "in time"]);
});

test("a second signal waits for nothing", async () => {
  const { port, drain } = await start(() => {});
  const hanging = openRaw(port, get);
  const hurry = new AbortController();
  const over = drain({ announceMs: 60_000, graceMs: 60_000 }, hurry.signal);
  expect(hanging.isClosed()).toBe(false);
  hurry.abort();
  await over;
  await hanging.closed;
});

test("clients that heed the farewell lose no request while another takes over", async () => {
  const leaving = await start(ok, { reusePort: true });
  const staying = await start(ok, { reusePort: true, port: leaving.port });
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  closers.push(() => agent.destroy());
  const failures: string[] = [];
  let served = 0;
  let stop = false;
  const ask = () =>
    new Promise<void>((resolve) => {
      const out = request({ port: leaving.port, host: "127.0.0.1", agent }, (res) => {
        res.resume();
        res.once("close", () => {
          served += 1;
          resolve();
        });
      });
      out.once("error", (error) => {
        failures.push(error.message);
        resolve();
      });
      out.end();
    });
  const client = async () => {
    while (!stop) await ask();
  };
  const clients = Promise.all([...Array(8).keys()].map(client));
  await until(() => expect(served).toBeGreaterThan(50));
  await leaving.drain({ announceMs: 200, graceMs: 8000 }, never);
  const then = served;
  await until(() => expect(served).toBeGreaterThan(then + 50));
  stop = true;
  await clients;
  expect(failures).toEqual([]);
  expect(staying.connections.open()).toBeGreaterThan(0);
});

const statusOf = (session: ClientHttp2Session) =>
  new Promise<number>((resolve, reject) => {
    const stream = session.request({ ":path": "/" });
    stream.once("error", reject);
    stream.once("response", (headers) => resolve(Number(headers[":status"])));
    stream.resume();
  });

test("a session is told to leave, and its streams are finished", async () => {
  const answers: Array<() => void> = [];
  const announcement = holdAnnouncement();
  const hold: Handler = (_req, res) => {
    answers.push(() => void res.writeHead(200, []).end("x"));
  };
  const { port, drain } = await start(hold, { protocol: "h2c", clock: announcement.clock });
  const open = async () => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    closers.push(() => session.destroy());
    session.on("error", () => {});
    await new Promise((resolve) => session.once("connect", resolve));
    return session;
  };
  const session = await open();
  const first = statusOf(session);
  await until(() => expect(answers.length).toBe(1));
  const over = drain({ announceMs, graceMs: 20_000 }, never);
  await until(() => expect(session.closed).toBe(true));
  // Whoever connects now is served once, and told with it.
  const late = await open();
  const second = statusOf(late);
  await until(() => expect(late.closed).toBe(true));
  announcement.end();
  for (const answer of answers) answer();
  expect([await first, await second]).toEqual([200, 200]);
  await over;
});
