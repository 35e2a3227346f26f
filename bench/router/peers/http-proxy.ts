/** The npm package that most people use, with what a tenant router needs done around it. */
import { randomUUID } from "node:crypto";
import { Agent, createServer } from "node:http";
import httpProxy from "http-proxy";
import { listenPort, readTenants } from "./tenant-cells.ts";

const tenants = readTenants();
const proxy = httpProxy.createProxyServer({
  xfwd: true,
  agent: new Agent({ keepAlive: true, maxSockets: 256 }),
});
let served = 0;

createServer((req, res) => {
  const target = tenants.get(String(req.headers["x-tenant-id"]));
  if (target === undefined) {
    res.writeHead(404).end();
    return;
  }
  served += 1;
  req.headers["x-request-id"] = randomUUID();
  req.headers["via"] = `${req.httpVersion} bench`;
  proxy.web(req, res, { target }, () => res.destroy());
}).listen(listenPort, "127.0.0.1");

process.once("SIGTERM", () => {
  process.stderr.write(`served ${served}\n`);
  process.exit(0);
});
