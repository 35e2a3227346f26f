/**
 * A cell that reads what it is sent by the strict reader, tells of every request, and answers with the key
 * of what it saw. It refuses to believe in anything that the reader does not understand.
 */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { keyOf } from "./expected.ts";
import { readRequest } from "./strict-http.ts";

export type Recorder = {
  readonly url: string;
  readonly open: () => number;
  readonly close: () => Promise<void>;
};

export async function startRecorder(
  onRequest: (key: string) => void,
  onTrouble: (what: string) => void,
): Promise<Recorder> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    let text = "";
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.on("data", (data) => {
      text = answerAll(socket, text + data.toString("latin1"));
    });
  });
  /** Returns what is no whole request yet. */
  const answerAll = (socket: Socket, text: string): string => {
    let at = 0;
    for (;;) {
      const message = readRequest(text, at);
      if (message.kind === "partial") return text.slice(at);
      const line = message.kind === "message" ? lineOf(message.start) : undefined;
      if (message.kind === "broken" || line === undefined) {
        onTrouble(`bytes that are no request: ${JSON.stringify(text.slice(at, at + 300))}`);
        socket.destroy();
        return "";
      }
      at = message.end;
      const key = keyOf(line.method, line.target, message);
      onRequest(key);
      socket.write(answer(line.method === "HEAD", key), "latin1");
    }
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    open: () => sockets.size,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function lineOf(start: string) {
  const [method = "", target = "", version, ...more] = start.split(" ");
  return version === "HTTP/1.1" && more.length === 0 ? { method, target } : undefined;
}

const answer = (bodiless: boolean, key: string): string =>
  `HTTP/1.1 200 OK\r\nContent-Length: ${key.length}\r\n\r\n${bodiless ? "" : key}`;
