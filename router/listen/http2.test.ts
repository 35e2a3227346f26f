/** HTTP/2 over TLS in, HTTP/1.1 out: what streams goes on streaming, both ways, and ends as it ended. */
import { mkdir, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type OutgoingHttpHeaders,
} from "node:http2";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { createAuthority } from "../../runtime/tls/certificates.fixture.ts";
import { createBench, until } from "../running.fixture.ts";

vi.setConfig({ testTimeout: 60_000 });
const bench = createBench();
const authority = createAuthority();

type Cell = (req: IncomingMessage, res: ServerResponse) => void;

async function open(cell: Cell): Promise<ClientHttp2Session> {
  const url = await bench.startApp(cell);
  const certs = join(bench.dir(), "certs");
  await mkdir(certs);
  const { cert, key } = authority.issue(["localhost"]);
  await writeFile(join(certs, "local.crt"), cert);
  await writeFile(join(certs, "local.key"), key);
  const { router } = await bench.startStatic(
    { cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } },
    { tls: "127.0.0.1:0", tlsCerts: certs },
  );
  const session = connect(`https://localhost:${router.tlsPort}`, { ca: authority.cert });
  session.on("error", () => {});
  bench.closers.push(async () => session.destroy());
  return session;
}

function begin(session: ClientHttp2Session, headers: OutgoingHttpHeaders, endStream = true) {
  const stream = session.request(
    { ":path": "/", "x-tenant-id": "acme", ...headers },
    { endStream },
  );
  stream.on("error", () => {});
  return stream;
}

/** What came, as it comes; `ended` only if the answer came whole. */
function collect(stream: ClientHttp2Stream) {
  const got = { text: "", bytes: 0, ended: false, rst: undefined as number | undefined };
  stream.on("data", (chunk: Buffer) => {
    got.bytes += chunk.length;
    if (got.bytes < 10_000) got.text += chunk.toString();
  });
  stream.once("end", () => {
    got.ended = stream.rstCode === 0;
  });
  stream.once("close", () => {
    got.rst = stream.rstCode;
  });
  return got;
}

const pieceBytes = 256 * 1024;
/** Far more than all the buffers on the way, in the system and in us. */
const wholeBytes = 160 * pieceBytes;
const bufferedBytesMax = wholeBytes / 2;

/** Writes as long as somebody takes it; says how far it has come. */
function pour(out: ClientHttp2Stream | ServerResponse): () => number {
  let poured = 0;
  const piece = Buffer.alloc(pieceBytes, "x");
  const more = () => {
    while (poured < wholeBytes) {
      poured += pieceBytes;
      if (!out.write(piece)) {
        out.once("drain", more);
        return;
      }
    }
    out.end();
  };
  more();
  return () => poured;
}

/** Waits until a number does not grow any more. */
async function settled(count: () => number): Promise<number> {
  let before = -1;
  let calm = 0;
  await vi.waitFor(
    () => {
      calm = count() === before ? calm + 1 : 0;
      before = count();
      expect(calm).toBeGreaterThan(20);
    },
    { timeout: 20_000, interval: 20 },
  );
  return before;
}

test("events arrive one by one, while the stream stays open", async () => {
  let send = (_event: string) => {};
  const session = await open((_req, res) => {
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.flushHeaders();
    send = (event) => void res.write(`data: ${event}\n\n`);
  });
  const stream = begin(session, { accept: "text/event-stream" });
  const got = collect(stream);
  await new Promise((resolve) => stream.once("response", resolve));
  for (const event of ["one", "two", "three"]) {
    send(event);
    await until(() => expect(got.text).toMatch(new RegExp(`data: ${event}\n\n$`)));
  }
  expect(got.ended).toBe(false);
  stream.close();
});

test("an upload that the cell does not read waits at the client", async () => {
  let request: IncomingMessage | undefined;
  let received = 0;
  const session = await open((req, res) => {
    request = req;
    req.pause();
    req.on("data", (chunk: Buffer) => {
      received += chunk.length;
    });
    req.pause();
    req.once("end", () => res.end(String(received)));
  });
  const stream = begin(session, { ":method": "POST" }, false);
  const got = collect(stream);
  const poured = pour(stream);
  await until(() => expect(request).toBeDefined());
  expect(await settled(poured)).toBeLessThan(bufferedBytesMax);
  request?.resume();
  await vi.waitFor(() => expect(got.text).toBe(String(wholeBytes)), 20_000);
});

test("an answer that the client does not read waits at the cell", async () => {
  let poured = () => 0;
  const session = await open((_req, res) => {
    poured = pour(res);
  });
  const stream = begin(session, {});
  stream.pause();
  await until(() => expect(poured()).toBeGreaterThan(0));
  expect(await settled(poured)).toBeLessThan(bufferedBytesMax);
  const got = collect(stream);
  stream.resume();
  await vi.waitFor(() => expect([got.bytes, got.ended]).toEqual([wholeBytes, true]), 20_000);
});

test("both directions of one stream flow at once", async () => {
  const session = await open((req, res) => {
    req.on("data", (chunk) => res.write(`echo ${chunk}`));
    req.once("end", () => res.end("!"));
  });
  const stream = begin(session, { ":method": "POST" }, false);
  const got = collect(stream);
  for (const word of ["one", "two"]) {
    stream.write(word);
    await until(() => expect(got.text).toMatch(new RegExp(`echo ${word}$`)));
  }
  stream.end();
  await until(() => expect([got.text, got.ended]).toEqual(["echo oneecho two!", true]));
});

test("trailers of a gRPC answer reach a client that takes them", async () => {
  const session = await open((_req, res) => {
    res.writeHead(200, { "content-type": "application/grpc-web+proto", trailer: "grpc-status" });
    res.write("frame");
    res.addTrailers({ "grpc-status": "0", "grpc-message": "fine" });
    res.end();
  });
  const stream = begin(session, { te: "trailers", "content-type": "application/grpc-web+proto" });
  let trailers: object = {};
  stream.once("trailers", (got) => {
    trailers = { ...got };
  });
  const got = collect(stream);
  await until(() => expect(got.ended).toBe(true));
  expect(got.text).toBe("frame");
  expect(trailers).toMatchObject({ "grpc-status": "0", "grpc-message": "fine" });
});

test("who leaves takes the other side along, whichever it is", async () => {
  const seen: string[] = [];
  const session = await open((req, res) => {
    req.on("error", () => {});
    res.once("close", () => seen.push(`${req.url} ${res.writableFinished}`));
    req.on("data", (chunk: Buffer) => {
      if (chunk.toString() === "x") res.write("begun");
      else res.destroy();
    });
  });
  const leaving = begin(session, { ":method": "POST", ":path": "/leave" }, false);
  const left = collect(leaving);
  leaving.write("x");
  await until(() => expect(left.text).toBe("begun"));
  leaving.close(8);
  await until(() => expect(seen).toEqual(["/leave false"]));

  const cut = begin(session, { ":method": "POST", ":path": "/cut" }, false);
  const got = collect(cut);
  cut.write("x");
  await until(() => expect(got.text).toMatch(/begun/));
  cut.write("y");
  await until(() => expect([got.rst, got.ended]).toEqual([2, false]));
  expect(session.destroyed).toBe(false);
});
