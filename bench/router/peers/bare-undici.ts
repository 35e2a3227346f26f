/**
 * The yardstick: node:http in, undici's `dispatch` out, headers as they come, and nothing of what a
 * router does: no tenant, no header of its own, no timer, no count, no log. What stands here is the
 * least that two libraries cost.
 */
import { createServer, type ServerResponse } from "node:http";
import { type Dispatcher, Pool } from "undici";
import { must } from "../../../runtime/assert.ts";
import { cellUrls, listenPort } from "./tenant-cells.ts";

const pools = cellUrls.map((url) => new Pool(url, { connections: 256, pipelining: 1 }));
let turn = 0;

/** Of one connection; undici and node:http set their own. */
const connectionHeaders: ReadonlySet<string> = new Set(["connection", "keep-alive"]);

class Relay implements Dispatcher.DispatchHandler {
  readonly #res: ServerResponse;
  constructor(res: ServerResponse) {
    this.#res = res;
  }
  onRequestStart(): void {}
  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    const raw = controller.rawHeaders;
    const headers: string[] = [];
    if (Array.isArray(raw)) {
      for (let at = 0; at + 1 < raw.length; at += 2) {
        const name = String(raw[at]);
        if (!connectionHeaders.has(name.toLowerCase())) headers.push(name, String(raw[at + 1]));
      }
    }
    this.#res.writeHead(status, headers);
  }
  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#res.write(chunk)) return;
    controller.pause();
    this.#res.once("drain", () => controller.resume());
  }
  onResponseEnd(): void {
    this.#res.end();
  }
  onResponseError(): void {
    this.#res.destroy();
  }
}

createServer((req, res) => {
  turn = (turn + 1) % pools.length;
  const body = req.method === "GET" ? null : req;
  must(pools[turn], "pool").dispatch(
    { method: req.method ?? "GET", path: req.url ?? "/", headers: req.rawHeaders, body },
    new Relay(res),
  );
}).listen(listenPort, "127.0.0.1");
