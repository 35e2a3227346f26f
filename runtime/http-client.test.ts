import { createServer, type RequestListener } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { createJsonClient, type JsonClient } from "./http-client.ts";

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function clientOf(listener: RequestListener): Promise<JsonClient> {
  const server = createServer(listener);
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const client = createJsonClient({
    origin: `http://127.0.0.1:${address.port}`,
    token: "t0ken",
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  closers.push(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  });
  return client;
}

const call = (client: JsonClient, timeoutMs = 10_000) =>
  client.call({
    method: "POST",
    path: "/v1/x",
    body: { a: 1 },
    schema: z.object({ ok: z.boolean() }),
    timeoutMs,
  });

describe("a JSON call", () => {
  test("sends body and token, and returns what fits the schema", async () => {
    const seen: unknown[] = [];
    const client = await clientOf((incoming, response) => {
      seen.push(incoming.method, incoming.url, incoming.headers.authorization);
      incoming.on("data", (chunk: Buffer) => seen.push(chunk.toString("utf8")));
      incoming.on("end", () => response.end('{"ok":true,"more":1}'));
    });
    expect(await call(client)).toEqual({ ok: true });
    expect(seen).toEqual(["POST", "/v1/x", "Bearer t0ken", '{"a":1}']);
  });

  test("an error body of the house comes back as the same error", async () => {
    const client = await clientOf((_incoming, response) => {
      response.statusCode = 409;
      response.end(
        '{"error":{"code":"STATE_CONFLICT","message":"no","next_steps":["wait"],"details":{"a":1}}}',
      );
    });
    await expect(call(client)).rejects.toMatchObject({
      code: "STATE_CONFLICT",
      message: "no",
      nextSteps: ["wait"],
      details: { a: 1 },
    });
  });

  test.each([
    ["an answer that is not JSON", 200, "<html>"],
    ["an answer that does not fit", 200, '{"ok":"yes"}'],
    ["an error without a body of the house", 502, "bad gateway"],
  ])("%s means that the peer is not there", async (_what, status, body) => {
    const client = await clientOf((_incoming, response) => {
      response.statusCode = status;
      response.end(body);
    });
    await expect(call(client)).rejects.toMatchObject({ code: "CONTROL_PLANE_UNREACHABLE" });
  });

  test("a code that this release does not know is a fault, with its message", async () => {
    const client = await clientOf((_incoming, response) => {
      response.statusCode = 400;
      response.end('{"error":{"code":"FROM_THE_FUTURE","message":"new","next_steps":[]}}');
    });
    await expect(call(client)).rejects.toMatchObject({ code: "INTERNAL", message: "new" });
  });

  test("a peer that never answers is given up at the deadline", async () => {
    const client = await clientOf(() => {});
    await expect(call(client, 50)).rejects.toMatchObject({ code: "CONTROL_PLANE_UNREACHABLE" });
  });

  test("nobody listening is the same code", async () => {
    const client = createJsonClient({
      origin: "http://127.0.0.1:1",
      unreachable: "CONTROL_PLANE_UNREACHABLE",
    });
    await expect(call(client)).rejects.toMatchObject({ code: "CONTROL_PLANE_UNREACHABLE" });
    await client.close();
  });
});
