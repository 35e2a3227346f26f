/** Fastify's proxy plug-in, which forwards with undici, choosing the cell per request. */
import { randomUUID } from "node:crypto";
import httpProxy from "@fastify/http-proxy";
import fastify from "fastify";
import { must } from "../../../runtime/assert.ts";
import { listenPort, readTenants } from "./tenant-cells.ts";

const tenants = readTenants();
const server = fastify({ logger: process.argv[5] === "log", genReqId: () => randomUUID() });
await server.register(httpProxy, {
  upstream: "",
  undici: { connections: 256, pipelining: 1 },
  preHandler: (request, reply, done) => {
    if (!tenants.has(String(request.headers["x-tenant-id"]))) reply.code(404).send();
    else done();
  },
  replyOptions: {
    getUpstream: (request) =>
      must(tenants.get(String(request.headers["x-tenant-id"])), "tenant's cell"),
    rewriteRequestHeaders: (request, headers) => ({
      ...headers,
      "x-request-id": String(request.id),
      "x-forwarded-for": request.ip,
      "x-forwarded-host": request.hostname,
      "x-forwarded-proto": "http",
      via: "1.1 bench",
    }),
  },
});
await server.listen({ port: listenPort, host: "127.0.0.1" });
