/**
 * HTTP/2: sessions out of sockets, with TLS (by ALPN) or in clear with prior knowledge. What floods it
 * is bounded by `streamLimits`; malformed messages are reset by the protocol library.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  createServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import { CellError, type ErrorCode } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import { buildRefusal } from "../answer/refuse.ts";
import { type ListenLimits, streamLimits } from "./limits.ts";
import { asHttp1 } from "./stream-request.ts";

export type Http2Options = {
  readonly clock: Clock;
  readonly limits: ListenLimits;
  readonly routerId: string;
  readonly onBadInput: (code: ErrorCode) => void;
  readonly onRequest: (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => void;
};

export type Http2Side = {
  /** Listens in clear, or is handed sockets by `connection`. */
  readonly server: Http2Server;
  /** GOAWAY that still takes what is on its way. */
  readonly announce: () => void;
  /** GOAWAY: streams in flight are finished, new ones are refused. */
  readonly close: () => void;
};

export function createHttp2(options: Http2Options): Http2Side {
  const sessions = new Set<ServerHttp2Session>();
  const told = new WeakSet<ServerHttp2Session>();
  let leaving = false;
  const server = createServer(settings(options.limits));
  const serve =
    (expectsContinue: boolean) => (req: Http2ServerRequest, res: Http2ServerResponse) => {
      req.on("error", () => {});
      res.on("error", () => {});
      const { session } = req.stream;
      // A session that began after the announcement is told with its first stream.
      if (leaving && session !== undefined) tell(session as ServerHttp2Session, told);
      const client = asHttp1(req, res);
      if (headBytes(req.rawHeaders) > options.limits.headerBytesMax) {
        refuseHead(client.res, options);
        return;
      }
      options.onRequest(client.req, client.res, expectsContinue);
    };
  server.on("request", serve(false));
  server.on("checkContinue", serve(true));
  server.on("sessionError", () => {});
  server.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    boundSession(session, options);
  });
  return {
    server,
    announce: () => {
      leaving = true;
      for (const session of sessions) tell(session, told);
    },
    close: () => {
      for (const session of sessions) session.close();
    },
  };
}

const headBytes = (raw: readonly string[]): number =>
  raw.reduce((sum, part) => sum + part.length, 0);

/** Node holds a client to the size of heads only once it has acknowledged our settings. */
function refuseHead(res: ServerResponse, { routerId, onBadInput }: Http2Options): void {
  onBadInput("HEADERS_TOO_LARGE");
  const error = new CellError("HEADERS_TOO_LARGE", "The header section is larger than the limit.");
  const refusal = buildRefusal(error, routerId, "");
  res.writeHead(refusal.status, [...refusal.headers]);
  res.end(refusal.body);
}

const settings = (limits: ListenLimits) => ({
  settings: {
    maxConcurrentStreams: streamLimits.streamsMax,
    enablePush: false,
    initialWindowSize: streamLimits.streamWindowBytes,
    maxHeaderListSize: limits.headerBytesMax,
  },
  streamResetBurst: streamLimits.resetBurst,
  streamResetRate: streamLimits.resetRate,
  maxSessionMemory: streamLimits.sessionMegabytesMax,
  maxHeaderListPairs: streamLimits.fieldsMax,
  maxSettings: streamLimits.settingsMax,
  maxSessionInvalidFrames: streamLimits.invalidFramesMax,
});

/** The largest id there is: nothing that the client has sent or sends now is refused. */
const anyStream = 2 ** 31 - 1;

function tell(session: ServerHttp2Session, told: WeakSet<ServerHttp2Session>): void {
  if (session.destroyed || told.has(session)) return;
  told.add(session);
  session.goaway(0, anyStream);
}

function boundSession(session: ServerHttp2Session, { clock, limits }: Http2Options): void {
  session.setLocalWindowSize(streamLimits.sessionWindowBytes);
  // Who connects says what it speaks (RFC 9113 section 3.4); who says nothing is a slow client.
  const silent = clock.after(limits.headersMs, () => session.destroy(), { background: true });
  session.once("remoteSettings", () => silent.cancel());
  session.once("close", () => silent.cancel());
  // Our own timer: that of a session (`setTimeout`) is not cleared at its end, and keeps it alive meanwhile.
  let streams = 0;
  const idle = () => clock.after(limits.keepAliveMs, () => session.close(), { background: true });
  let closing = idle();
  session.on("stream", (stream) => {
    streams += 1;
    // A stream in flight has timers of its own.
    closing.cancel();
    stream.once("close", () => {
      streams -= 1;
      if (streams === 0 && !session.closed) closing = idle();
    });
  });
  session.once("close", () => closing.cancel());
}
