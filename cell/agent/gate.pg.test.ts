/** What the gate passes on and what it refuses, between real sockets, over a real database. */

import { connect } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import { must } from "../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench } from "./agent.fixture.ts";

const acme = acmeKey;
let server: TestPostgres;
let bench: AgentBench;
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
});
afterEach(() => bench.close());

describe("a request", () => {
  test("of an active key passes, and its answer is confirmed with epoch and lease", async () => {
    const agent = await bench.serving();
    const answer = await bench.ask(agent, { method: "POST", body: "hello" });
    expect(answer.body).toBe("made");
    const confirm = must(answer.header(headers.confirm), "confirmation");
    expect(confirm).toMatch(new RegExp(`^cell=${bench.store.name};epoch=1;lease=\\d+$`));
    expect(Number(confirm.split("lease=")[1])).toBeGreaterThan(1_000_000);
    // What the application said under our prefix is gone.
    expect(answer.header(headers.notAdmitted)).toBeUndefined();
    expect(answer.header("x-app")).toBe("yes");
    const seen = must(bench.app.seen[0], "request");
    expect(headerValues(seen, headers.tenant)).toEqual(["acme"]);
    expect(headerValues(seen, headers.key)).toEqual([acme]);
    expect(headerValues(seen, headers.epoch)).toEqual(["1"]);
    expect(headerValues(seen, headers.nonce)).toEqual([]);
  });

  test("that a router did not make is refused before the application sees it", async () => {
    const agent = await bench.serving();
    const answer = await bench.ask(agent, { extra: { [headers.nonce]: undefined } });
    expect(answer).toMatchObject({ status: 403, code: "GATE_HEADERS_MISSING" });
    expect(bench.app.seen).toEqual([]);
  });

  test.each([
    ["another epoch", { epoch: 2 }],
    ["an unknown tenant", { tenant: "nobody" }],
    ["another cell", { extra: { [headers.cell]: "cell-99" } }],
  ])("for %s is answered 421 with its nonce", async (_what, more) => {
    const agent = await bench.serving();
    const answer = await bench.ask(agent, more);
    expect(answer).toMatchObject({ status: 421, code: "PLACEMENT_STALE" });
    expect(answer.header(headers.notAdmitted)).toBe("nonce-1");
    expect(bench.app.seen).toEqual([]);
  });

  test("cannot take the gate's headers away by naming them in Connection", async () => {
    const agent = await bench.serving();
    const answer = await bench.ask(agent, { extra: { te: "trailers" } });
    expect(answer.status).toBe(201);
    const raw = await rawRequest(agent.endpoint, [
      "GET /things HTTP/1.1",
      "host: x",
      `connection: close, ${headers.epoch}`,
      `${headers.tenant}: acme`,
      `${headers.keyspace}: default`,
      `${headers.key}: ${acme}`,
      `${headers.epoch}: 1`,
      `${headers.cell}: ${bench.store.name}`,
      `${headers.nonce}: n`,
    ]);
    expect(raw).toContain("201");
    expect(headerValues(must(bench.app.seen.at(-1), "request"), headers.epoch)).toEqual(["1"]);
  });

  test.each([
    ["without a path", "OPTIONS * HTTP/1.1", "400"],
    ["with a whole URL", "GET http://elsewhere.test/x HTTP/1.1", "400"],
    ["in HTTP/1.0", "GET /old HTTP/1.0", "201"],
  ])("%s does no harm", async (_what, line, expected) => {
    const agent = await bench.serving();
    const raw = await rawRequest(agent.endpoint, [
      ...[line, "host: x", "connection: close", `${headers.tenant}: acme`],
      ...[`${headers.keyspace}: default`, `${headers.key}: ${acme}`, `${headers.epoch}: 1`],
      ...[`${headers.cell}: ${bench.store.name}`, `${headers.nonce}: n`],
    ]);
    expect(raw).toContain(expected);
    expect((await bench.ask(agent)).status).toBe(201);
  });

  test("that waits for 100 Continue is told to go on only once it is admitted", async () => {
    const agent = await bench.serving();
    const head = (epoch: number) => [
      ...["POST /things HTTP/1.1", "host: x", "connection: close", "expect: 100-continue"],
      ...["content-length: 5", `${headers.tenant}: acme`, `${headers.keyspace}: default`],
      ...[`${headers.key}: ${acme}`, `${headers.epoch}: ${epoch}`],
      ...[`${headers.cell}: ${bench.store.name}`, `${headers.nonce}: n`],
    ];
    const admitted = await rawRequest(agent.endpoint, head(1), "hello");
    expect(admitted).toMatch(/^HTTP\/1\.1 100 [\s\S]*HTTP\/1\.1 201 /);
    expect(await rawRequest(agent.endpoint, head(9), "hello")).toMatch(/^HTTP\/1\.1 421 /);
  });

  test("of an application that is down is 503 and may be sent again", async () => {
    const agent = await bench.serving();
    await bench.app.close();
    const answer = await bench.ask(agent);
    expect(answer).toMatchObject({ status: 503, code: "APP_UNREACHABLE" });
    expect(answer.header(headers.notAdmitted)).toBe("nonce-1");
  });
});

/** `afterContinue` is sent when the server says that it wants the body. */
async function rawRequest(
  endpoint: string,
  head: readonly string[],
  afterContinue = "",
): Promise<string> {
  const url = new URL(endpoint);
  const socket = connect(Number(url.port), url.hostname);
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  let text = "";
  for await (const chunk of socket) {
    text += String(chunk);
    if (text.endsWith("Continue\r\n\r\n")) socket.write(afterContinue);
  }
  return text;
}
