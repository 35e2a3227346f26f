/**
 * The agents' own door at the gate, in front of everything that is routed: an origin's agent asks an
 * annex's for a promise, an annex's asks the origin's whether it serves. Routers' requests name a cell in
 * their headers and never come here.
 *
 * Always true: whoever does not show the pair's token learns nothing and changes nothing; a body is
 * bounded in bytes and time.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { headers } from "../../../contract/headers.ts";
import {
  type PromiseAnswer,
  type PromiseRequest,
  promiseRequestSchema,
} from "../../../contract/standby-api.ts";
import type { Clock } from "../../../runtime/clock.ts";

export const promisePath = "/cellfleet/promise";
export const alivePath = "/cellfleet/livez";

export type DoorAnswer =
  | PromiseAnswer
  /** Nothing was done: ask again. */
  | "later";

export type DoorOptions = {
  readonly clock: Clock;
  /** Is it the pair's? Of who does not show it not one byte of a body is read. */
  readonly knows: (token: string) => boolean;
  readonly promise: (asked: PromiseRequest) => Promise<DoorAnswer>;
  /** Its databases can be written and it holds a lease. */
  readonly serves: () => boolean;
};

export type Door = {
  /** False: not for this door, and untouched. */
  readonly serve: (req: IncomingMessage, res: ServerResponse) => boolean;
};

const bodyBytesMax = 4096;
const bodyMs = 2000;
/** More origins than one are at the wrong annex. */
const callsMax = 8;

export function createDoor({ clock, knows, promise, serves }: DoorOptions): Door {
  let calls = 0;

  async function servePromise(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const token = /^Bearer (\S{1,400})$/.exec(req.headers.authorization ?? "")?.[1] ?? "";
    if (!knows(token)) return send(res, 403);
    if (calls >= callsMax) return send(res, 503);
    calls += 1;
    const late = clock.after(bodyMs, () => req.destroy(), { background: true });
    try {
      const body = await readBody(req);
      const asked = promiseRequestSchema.safeParse(body);
      if (!asked.success) return send(res, 400);
      const answer = await promise(asked.data);
      if (answer === "later") return send(res, 503);
      send(res, 200, answer);
    } catch {
      send(res, 503);
    } finally {
      late.cancel();
      calls -= 1;
    }
  }

  return {
    serve: (req, res) => {
      if (req.headers[headers.cell] !== undefined) return false;
      if (req.url === promisePath && req.method === "POST") {
        void servePromise(req, res);
        return true;
      }
      if (req.url !== alivePath || req.method !== "GET") return false;
      send(res, serves() ? 200 : 503);
      return true;
    },
  };
}

/** Undefined for what is too large or no JSON. */
async function readBody(req: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of req) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) return undefined;
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    return undefined;
  }
}

function send(res: ServerResponse, status: number, body?: unknown): void {
  if (res.headersSent || res.destroyed) return;
  const text = body === undefined ? "" : JSON.stringify(body);
  res.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    // What is left of a body that was not read goes with the connection.
    ...(status === 200 ? {} : { connection: "close" }),
  });
  res.end(text);
}
