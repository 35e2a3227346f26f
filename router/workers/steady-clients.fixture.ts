/**
 * For tests only: clients that never stop: on kept connections, on new ones, and on WebSockets. They do
 * what good clients do, no more: a connection that was told to close is not used again, and nothing is
 * repeated. So every request that is lost on the way shows.
 */
import { connect, type Socket } from "node:net";
import { must } from "../../runtime/assert.ts";

export type SteadyClients = {
  readonly answered: () => number;
  /** Tunnels that were opened, and opened again. */
  readonly tunnels: () => number;
  /** What went wrong, in words. */
  readonly failures: string[];
  /** After the requests that are on their way. */
  readonly stop: () => Promise<void>;
};

export type SteadyOptions = {
  readonly port: number;
  readonly tenant: string;
  readonly kept: number;
  readonly fresh: number;
  readonly tunnels: number;
};

export function startClients(options: SteadyOptions): SteadyClients {
  const state: { stopped: boolean; answered: number; tunnels: number } = {
    ...{ stopped: false, answered: 0, tunnels: 0 },
  };
  const failures: string[] = [];
  const fail = (text: string) => failures.push(text);
  const until = async (turn: () => Promise<void>) => {
    while (!state.stopped) await turn();
  };
  const ask = (connection: Connection, close: boolean) =>
    connection.ask(requestText(options.tenant, close)).then(
      (head) => {
        if (head.startsWith("HTTP/1.1 200 ")) state.answered += 1;
        else fail(head.slice(0, 30));
        return head;
      },
      (error: unknown) => {
        fail(String(error));
        return undefined;
      },
    );
  const keep = async () => {
    const connection = new Connection(options.port);
    let head: string | undefined = "";
    while (!state.stopped && head !== undefined && !/\r\nconnection: close/i.test(head)) {
      head = await ask(connection, false);
    }
    connection.end();
  };
  const begin = async () => {
    const connection = new Connection(options.port);
    await ask(connection, true);
    connection.end();
  };
  const tunnel = async () => {
    const connection = new Connection(options.port);
    try {
      const head = await connection.ask(upgradeText(options.tenant));
      if (head.startsWith("HTTP/1.1 101 ")) state.tunnels += 1;
      else fail(`tunnel: ${head.slice(0, 30)}`);
    } catch (error) {
      fail(`tunnel: ${error}`);
    }
    const timer = setInterval(() => state.stopped && connection.end(), 20);
    await connection.closed;
    clearInterval(timer);
  };
  const many = (count: number, turn: () => Promise<void>) =>
    Array.from({ length: count }, () => until(turn));
  const all = [
    ...many(options.kept, keep),
    ...many(options.fresh, begin),
    ...many(options.tunnels, tunnel),
  ];
  return {
    answered: () => state.answered,
    tunnels: () => state.tunnels,
    failures,
    stop: async () => {
      state.stopped = true;
      await Promise.all(all);
    },
  };
}

const requestText = (tenant: string, close: boolean) =>
  `GET /steady HTTP/1.1\r\nHost: steady.test\r\nx-tenant-id: ${tenant}\r\n${close ? "Connection: close\r\n" : ""}\r\n`;

const upgradeText = (tenant: string) =>
  `GET /tunnel HTTP/1.1\r\nHost: steady.test\r\nx-tenant-id: ${tenant}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`;

/** One connection that asks one thing at a time. */
export class Connection {
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  #got = "";
  #answer: { resolve: (head: string) => void; reject: (error: Error) => void } | undefined;
  #error: Error | undefined;

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (data) => {
      this.#got += data.toString("latin1");
      this.#look();
    });
    this.#socket.on("error", (error) => {
      this.#error ??= error;
    });
    this.closed = new Promise((resolve) => {
      this.#socket.once("close", () => {
        this.#error ??= new Error("closed without an answer");
        this.#answer?.reject(this.#error);
        resolve();
      });
    });
  }

  /** The head of the answer, when all of it is there. Rejects when the connection ends before. */
  ask(text: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#error !== undefined) reject(this.#error);
      this.#answer = { resolve, reject };
      this.#socket.write(text);
    });
  }

  end(): void {
    this.#socket.end();
  }

  #look(): void {
    const end = this.#got.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = this.#got.slice(0, end + 4);
    const length = /^content-length: (\d+)/im.exec(head)?.[1] ?? "0";
    const whole = end + 4 + Number(length);
    if (this.#got.length < whole) return;
    this.#got = this.#got.slice(whole);
    const answer = must(this.#answer, "a question for this answer");
    this.#answer = undefined;
    answer.resolve(head);
  }
}
