/** Which endpoint gets a request, and when its connections go. */
import { expect, test, vi } from "vitest";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { endpointLimits } from "../../runtime/http/endpoint.ts";
import { startRawPeer } from "../../runtime/http/peers.fixture.ts";
import { type Random, systemRandom } from "../../runtime/random.ts";
import { tableOf } from "../../table/table.fixture.ts";
import { type Candidate, choose, type Standing } from "./balance.ts";
import { Endpoints } from "./endpoints.ts";

const draws = (...units: number[]): Random => ({ ...systemRandom, unit: () => units.shift() ?? 0 });
const at = (url: string, inFlight = 0, standing: Standing = "usable"): Candidate => ({
  ...{ url, inFlight, standing },
  trialDue: false,
  lastResort: false,
});
const due = (one: Candidate): Candidate => ({ ...one, trialDue: true, lastResort: true });
const last = (one: Candidate): Candidate => ({ ...one, lastResort: true });
const out = (url: string) => at(url, 0, "out");
const dead = (url: string) => at(url, 0, "dead");

test.each([
  ["the less busy of two draws", [at("a", 5), at("b", 1)], [0, 0.9], undefined, "b"],
  ["also the other way round", [at("a", 1), at("b", 5)], [0.9, 0], undefined, "a"],
  ["the first draw when both are as busy", [at("a"), at("b")], [0.9, 0], undefined, "b"],
  ["another than the one that failed", [at("a"), at("b", 9)], [0, 0], "a", "b"],
  ["the same again if there is no other", [at("a")], [0, 0], "a", "a"],
  ["not a suspect", [at("a", 0, "suspect"), at("b", 9)], [0, 0], undefined, "b"],
  ["a suspect if all are", [at("a", 0, "suspect")], [0, 0], undefined, "a"],
  ["not one that is out while half are left", [out("a"), at("b", 9)], [0, 0], undefined, "b"],
  [
    "one that is out when less than half are left",
    [out("a"), out("b"), at("c")],
    [0, 0],
    undefined,
    "a",
  ],
  ["one that is out when all are", [out("a"), out("b")], [0.9, 0.9], undefined, "b"],
  [
    "never a dead one while another answers",
    [dead("a"), dead("b"), at("c")],
    [0, 0],
    undefined,
    "c",
  ],
  ["rather one that is out than a dead one", [dead("a"), out("b")], [0, 0], undefined, "b"],
  ["nobody when all are dead", [dead("a"), dead("b")], [0, 0], undefined, undefined],
  ["a trial that is due first", [at("a"), due(out("b"))], [0, 0], undefined, "b as trial"],
  ["no trial where the attempt before failed", [at("a"), due(out("b"))], [0, 0], "b", "a"],
  ["no early trial while another answers", [at("a"), last(dead("b"))], [0, 0], undefined, "a"],
  [
    "an early trial when all are dead",
    [dead("a"), last(dead("b"))],
    [0, 0],
    undefined,
    "b as trial",
  ],
] as const)("%s", (_name, candidates, units, avoid, wanted) => {
  const chosen = choose(candidates, draws(...units), avoid);
  expect(chosen && `${chosen.candidate.url}${chosen.trial ? " as trial" : ""}`).toBe(wanted);
});

test("work spreads over equal endpoints", () => {
  const candidates = [0, 1, 2, 3].map((nth) => ({ ...at(String(nth)), inFlight: 0 }));
  for (let nth = 0; nth < 400; nth += 1) {
    const chosen = choose(candidates, systemRandom, undefined);
    if (chosen !== undefined) chosen.candidate.inFlight += 1;
  }
  for (const { inFlight } of candidates) expect(Math.abs(inFlight - 100)).toBeLessThan(10);
});

test("connections to an endpoint that left the table are closed after its last request", async () => {
  const peer = await startRawPeer((socket) =>
    socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
  );
  const endpoints = new Endpoints({
    clock: systemClock,
    random: systemRandom,
    limits: endpointLimits,
  });
  try {
    endpoints.follow(tableOf(1, {}, { a: [peer.url] }));
    const endpoint = must(endpoints.pick([peer.url], undefined), "an endpoint").endpoint;
    expect(endpoints.pick([peer.url], undefined)?.endpoint).toBe(endpoint);
    await (await endpoint.pool.request({ method: "GET", path: "/" })).body.text();
    await endpoint.slots.take(new AbortController().signal);
    endpoints.follow(tableOf(2, {}, {}));
    expect(endpoints.load()).toEqual([]);
    expect([endpoint.pool.closed, peer.open()]).toEqual([false, 1]);
    endpoint.slots.give();
    await vi.waitFor(() => expect(peer.open()).toBe(0), { timeout: 25_000 });
  } finally {
    await endpoints.close();
    await peer.close();
  }
}, 30_000);
