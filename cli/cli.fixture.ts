/**
 * For tests: one command line run in this process, with streams that remember, and a small real HTTP
 * server that answers as a control plane does. Used by tests alone.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { PassThrough } from "node:stream";
import { z } from "zod";
import { CellError, errorBody, errorTable } from "../contract/errors.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import type { Io, Sink } from "./io.ts";
import { runCli } from "./run.ts";

export type Ran = { readonly code: number; readonly stdout: string; readonly stderr: string };

export type RunOptions = {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly home?: string;
  readonly stdin?: string;
  /** Both ends are a terminal. */
  readonly terminal?: boolean;
  readonly columns?: number;
  readonly clock?: Clock;
  readonly interrupted?: AbortSignal;
  /** Told of everything written to standard error, as it is written. */
  readonly onStderr?: (text: string) => void;
};

export async function cellctl(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const written = { stdout: "", stderr: "" };
  const sink = (name: "stdout" | "stderr"): Sink => ({
    write: async (text) => {
      written[name] += text;
      if (name === "stderr") options.onStderr?.(text);
    },
    isTerminal: options.terminal === true,
    columns: () => options.columns,
  });
  const stdin = Object.assign(new PassThrough(), { isTTY: options.terminal === true });
  stdin.end(options.stdin ?? "");
  const io: Io = {
    env: options.env ?? {},
    cwd: options.cwd ?? "/nonexistent",
    home: options.home ?? "/nonexistent",
    stdout: sink("stdout"),
    stderr: sink("stderr"),
    stdin,
    clock: options.clock ?? systemClock,
    random: systemRandom,
    interrupts: () => options.interrupted ?? new AbortController().signal,
    nodeVersion: process.versions.node,
  };
  const code = await runCli(args, io);
  return { code, ...written };
}

export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
};
export type Reply = { readonly status?: number; readonly body: unknown } | CellError | "hang up";
export type Answers = Readonly<Record<string, (asked: Asked) => Reply | Promise<Reply>>>;

export type StubServer = {
  readonly origin: string;
  /** Names it, as `CELLCTL_ADDR` and `CELLCTL_TOKEN`. */
  readonly env: Readonly<Record<string, string>>;
  readonly asked: readonly Asked[];
  readonly close: () => Promise<void>;
};

/** `answers` by `METHOD /path`; anything else is refused with the contract's own NOT_FOUND. */
export async function startStub(answers: Answers): Promise<StubServer> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void answer(request, response, answers, asked);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const address = z.object({ port: z.number() }).parse(server.address());
  const origin = `http://127.0.0.1:${address.port}`;
  return {
    origin,
    env: { CELLCTL_ADDR: origin, CELLCTL_TOKEN: "secret-of-the-test" },
    asked,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  answers: Answers,
  log: Asked[],
): Promise<void> {
  const url = new URL(request.url ?? "/", "http://stub");
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(Buffer.from(chunk));
  const asked: Asked = {
    method: request.method ?? "",
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    headers: request.headers,
    text: Buffer.concat(chunks).toString("utf8"),
  };
  log.push(asked);
  const reply = await answers[`${asked.method} ${asked.path}`]?.(asked);
  if (reply === "hang up") {
    response.destroy();
    return;
  }
  const refusal = reply ?? new CellError("NOT_FOUND", "There is nothing at this address.");
  const [status, body] =
    refusal instanceof CellError
      ? [errorTable[refusal.code].httpStatus, errorBody(refusal)]
      : [refusal.status ?? 200, refusal.body];
  response.writeHead(status, { "content-type": "application/json" });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
}
