/** The agents' own door: who is let in, and what hostile bytes come to. */
import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { request } from "undici";
import { afterEach, beforeEach, expect, test } from "vitest";
import { headers } from "../../../contract/headers.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { closeNow, listenUrl } from "../fake-control.fixture.ts";
import { alivePath, createDoor, type DoorAnswer, promisePath } from "./promise-door.ts";

let server: Server;
let url: string;
let answer: DoorAnswer | Error;
let seen: unknown[];
let serves: boolean;

beforeEach(async () => {
  seen = [];
  serves = true;
  answer = { promisedMs: 1000, number: 3 };
  const door = createDoor({
    clock: systemClock,
    knows: (token) => token === "secret",
    promise: async (asked) => {
      seen.push(asked);
      if (answer instanceof Error) throw answer;
      return answer;
    },
    serves: () => serves,
  });
  server = createServer((req, res) => {
    if (!door.serve(req, res)) res.writeHead(418).end("routed");
  });
  url = await listenUrl(server);
});
afterEach(() => closeNow(server));

const body = {
  ...{ origin: "cell-01", annex: "sb-cell-01-cell-02", forMs: 1000, systemIdentifier: "7" },
  ...{ timeline: 1, grant: 5, lsn: "0/500", instance: "cell-01-ab12" },
  boot: "2026-01-01T10:00:00.000001+00:00",
};
const post = async (text: string, more: Record<string, string> = {}) => {
  const answered = await request(`${url}${promisePath}`, {
    method: "POST",
    headers: { authorization: "Bearer secret", ...more },
    body: text,
  });
  return { status: answered.statusCode, text: await answered.body.text() };
};

test("a question of the contract is answered", async () => {
  const { status, text } = await post(JSON.stringify(body));
  expect([status, JSON.parse(text)]).toEqual([200, { promisedMs: 1000, number: 3 }]);
  expect(seen).toEqual([body]);
});

test.each([
  ["no JSON", "{"],
  ["nothing", ""],
  ["a list", "[]"],
  ["a field more", JSON.stringify({ ...body, admin: true })],
  ["a position that is none", JSON.stringify({ ...body, lsn: "0/0'; drop table x" })],
  ["a time that is none", JSON.stringify({ ...body, boot: "yesterday" })],
  ["a promise for ever", JSON.stringify({ ...body, forMs: 1e12 })],
  ["too many bytes", JSON.stringify({ ...body, instance: "x".repeat(10_000) })],
])("%s is refused unheard", async (_, text) => {
  expect((await post(text)).status).toBe(400);
  expect(seen).toEqual([]);
});

test("a wrong token, a moment's refusal and trouble are told apart", async () => {
  expect((await post(JSON.stringify(body), { authorization: "Bearer other" })).status).toBe(403);
  expect(seen).toEqual([]);
  answer = "later";
  expect((await post(JSON.stringify(body))).status).toBe(503);
  answer = new Error("a database said something secret");
  expect(await post(JSON.stringify(body))).toEqual({ status: 503, text: "" });
});

test("what a router brings is not for this door", async () => {
  const text = JSON.stringify(body);
  expect((await post(text, { [headers.cell]: "cell-01" })).status).toBe(418);
  const got = await request(`${url}${promisePath}`);
  expect(got.statusCode).toBe(418);
  expect(seen).toEqual([]);
});

test("who serves says so, and who does not, too", async () => {
  expect((await request(`${url}${alivePath}`)).statusCode).toBe(200);
  serves = false;
  expect((await request(`${url}${alivePath}`)).statusCode).toBe(503);
});

test("bodies that never end hold up nobody for long, and no more than a few", async () => {
  const { port } = new URL(url);
  const head = `POST ${promisePath} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\ncontent-length: 100\r\n\r\n{`;
  const slow = Array.from({ length: 8 }, () => {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {});
    socket.write(head);
    return new Promise<void>((resolve) => socket.once("close", () => resolve()));
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect((await post(JSON.stringify(body))).status).toBe(503);
  await Promise.all(slow);
  expect((await post(JSON.stringify(body))).status).toBe(200);
});
