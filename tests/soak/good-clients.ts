/** Clients that do all as they should, and believe nothing: each answer must be the one to its request. */
import { type ClientHttp2Session, connect } from "node:http2";
import { text } from "node:stream/consumers";
import { Agent, request } from "undici";
import { WebSocket } from "ws";
import { cellOf, judge, pauseIn, type Soaking, tenantOf } from "./soaking.ts";

/** Spreads the numbers of one client over all tenants. */
const stride = 7919;

type Sent = { readonly number: number; readonly mark: string; readonly bytes: number };

const sentBy = (seed: number, at: number): Sent => {
  const number = seed * stride + at;
  return { number, mark: `${seed}-${at}`, bytes: number % 5 === 0 ? (number % 7) * 3000 : 0 };
};

/** Keep-alive, one request after the other. */
export async function http1Client(soaking: Soaking, seed: number): Promise<void> {
  const dispatcher = new Agent({ connections: 1, pipelining: 1 });
  for (let at = 0; !soaking.over.aborted; at += 1) {
    const sent = sentBy(seed, at);
    const startedMs = performance.now();
    const problem = await overHttp1(soaking, dispatcher, sent).catch(String);
    tell(soaking, sent.number, startedMs, problem);
  }
  await dispatcher.destroy();
}

async function overHttp1(soaking: Soaking, dispatcher: Agent, sent: Sent) {
  const { mark, number, bytes } = sent;
  const answer = await request(`http://127.0.0.1:${soaking.port}/echo/${mark}`, {
    dispatcher,
    method: bytes > 0 ? "POST" : "GET",
    headers: { "x-tenant-id": tenantOf(number), "x-soak": mark },
    ...(bytes > 0 ? { body: Buffer.alloc(bytes, "p") } : {}),
  });
  const { statusCode, headers, body } = answer;
  return problemOf(soaking, sent, statusCode, headers["x-soak"], await body.text());
}

function tell(
  soaking: Soaking,
  number: number,
  startedMs: number,
  problem: string | undefined,
): void {
  const tookMs = performance.now() - startedMs;
  const { tally } = soaking;
  if (judge(soaking, number, startedMs, tookMs, problem) !== "good") return;
  tally.good += 1;
  tally.latencies.note(tookMs);
}

/** Four streams at a time on one session, which is opened anew when the router ends it. */
export async function http2Client(soaking: Soaking, seed: number): Promise<void> {
  let session = openSession(soaking);
  for (let at = 0; !soaking.over.aborted; at += 4) {
    if (session.closed || session.destroyed) session = openSession(soaking);
    const current = session;
    const four = [0, 1, 2, 3].map(async (one) => {
      const sent = sentBy(seed, at + one);
      const startedMs = performance.now();
      const problem = await overHttp2(soaking, current, sent).catch(String);
      tell(soaking, sent.number, startedMs, problem);
    });
    await Promise.all(four);
  }
  session.destroy();
}

export function openSession({ secured }: Soaking): ClientHttp2Session {
  if (secured === undefined) throw new Error("a soak without TLS has no sessions");
  const session = connect(`https://soak.test:${secured.port}`, {
    ca: secured.ca,
    host: "127.0.0.1",
    servername: "soak.test",
    lookup: (_name, _options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]),
  });
  session.on("error", () => {});
  return session;
}

async function overHttp2(soaking: Soaking, session: ClientHttp2Session, sent: Sent) {
  const { mark, number, bytes } = sent;
  const stream = session.request({
    ":path": `/echo/${mark}`,
    ":method": bytes > 0 ? "POST" : "GET",
    "x-tenant-id": tenantOf(number),
    "x-soak": mark,
  });
  const head = new Promise<Readonly<Record<string, unknown>>>((resolve) =>
    stream.once("response", resolve),
  );
  if (bytes > 0) stream.end(Buffer.alloc(bytes, "p"));
  else stream.end();
  // Fails when the stream does, so that the head comes only after it.
  const body = await text(stream);
  const headers = await head;
  return problemOf(soaking, sent, Number(headers[":status"]), headers["x-soak"], body);
}

function problemOf(
  soaking: Soaking,
  { number, mark, bytes }: Sent,
  status: number,
  echoed: unknown,
  body: string,
): string | undefined {
  if (status !== 200) return `${status} ${body.slice(0, 100)}`;
  const expected = `${cellOf(soaking, number).id} ${tenantOf(number)} ${bytes}\n`;
  return body === expected && echoed === mark ? undefined : `not its answer: ${body}`;
}

/** A tunnel stands for so long, with an echo now and then. */
const tunnelMs = 1500;
const echoEveryMs = 20;

/** Opens one tunnel after the other; each ends well or is reset. */
export async function tunnelClient(soaking: Soaking, seed: number): Promise<void> {
  const { tally } = soaking;
  for (let at = 0; !soaking.over.aborted; at += 1) {
    const number = seed * 13 + at;
    const startedMs = performance.now();
    const { openedMs, problem } = await oneTunnel(soaking, number, at % 2 === 0);
    const tookMs = openedMs - startedMs;
    if (judge(soaking, number, startedMs, tookMs, problem) === "good") {
      tally.tunnels += 1;
      tally.openings.note(tookMs);
    }
    await pauseIn(soaking, 10);
  }
}

type Tunnelled = {
  /** When it stood, or failed to. */
  readonly openedMs: number;
  readonly problem: string | undefined;
};

function oneTunnel(soaking: Soaking, number: number, endsWell: boolean) {
  return new Promise<Tunnelled>((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${soaking.port}/tunnel`, {
      headers: { "x-tenant-id": tenantOf(number) },
    });
    const mark = `${number}`;
    let echoes = 0;
    let problem: string | undefined = "ended before its time";
    let timer: NodeJS.Timeout | undefined;
    let openedMs: number | undefined;
    const send = () => {
      if (socket.readyState === WebSocket.OPEN) socket.send(mark, () => {});
    };
    let looks = 0;
    const end = () => {
      looks += 1;
      // A machine that stood still owes the echo, not the router.
      if (echoes === 0 && looks < 4) {
        timer = setTimeout(end, tunnelMs);
        return;
      }
      problem = echoes > 0 ? undefined : "no echo";
      if (endsWell) socket.close();
      else socket.terminate();
    };
    socket.on("error", (error) => {
      problem = String(error);
    });
    socket.on("open", () => {
      openedMs = performance.now();
      timer = setTimeout(end, tunnelMs);
      send();
    });
    socket.on("message", (data) => {
      echoes += 1;
      if (String(data) !== mark) problem = `not its echo: ${data}`;
      else setTimeout(send, echoEveryMs);
    });
    socket.on("close", () => {
      clearTimeout(timer);
      resolve({ openedMs: openedMs ?? performance.now(), problem });
    });
  });
}
