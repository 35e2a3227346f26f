/**
 * Pure: what a stream of bytes asks for, by the strict reader, and under which key an upstream may see it:
 * method, target, mark and body. The router may refuse more than the reader does, never carry more.
 */
import { type Message, readRequest, valuesOf } from "./strict-http.ts";

export type Asked = {
  readonly key: string;
  readonly cell: "a" | "b";
  readonly head: boolean;
  /** Its answer is the last of the connection. */
  readonly last: boolean;
};
export type Stream = {
  readonly asked: readonly Asked[];
  /** Every byte belongs to a request. */
  readonly whole: boolean;
};

export const keyOf = (method: string, target: string, { fields, body }: Message): string =>
  JSON.stringify([method, target, valuesOf(fields, "x-mark"), body]);

export function readStream(text: string): Stream {
  const asked: Asked[] = [];
  let at = 0;
  while (at < text.length) {
    // Line ends before a request line are passed over (RFC 9112 section 2.2).
    if (text[at] === "\r" || text[at] === "\n") {
      at += 1;
      continue;
    }
    const message = readRequest(text, at);
    if (message.kind !== "message") return { asked, whole: false };
    const one = requestOf(message);
    if (one === undefined) return { asked, whole: false };
    asked.push(one);
    at = message.end;
    if (one.last) break;
  }
  return { asked, whole: at >= text.length };
}

function requestOf(message: Message): Asked | undefined {
  // Several spaces are taken for one by Node's parser (RFC 9112 section 3 allows it).
  const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([^\s]+) +(?:HTTP|RTSP|ICE)\/1\.([01]) *$/.exec(
    message.start,
  );
  if (match === null) return undefined;
  const [, method = "", target = "", minor] = match;
  const connection = tokens(message, "connection");
  // A tunnel, or a plain request: either way nothing follows it on this connection.
  const upgrade = tokens(message, "upgrade").length > 0;
  const closes =
    connection.includes("close") || (minor === "0" && !connection.includes("keep-alive"));
  return {
    key: keyOf(method, originForm(target), message),
    cell: valuesOf(message.fields, "host")[0]?.startsWith("globex.") === true ? "b" : "a",
    head: method === "HEAD",
    last: closes || method === "CONNECT" || upgrade,
  };
}

const tokens = ({ fields }: Message, name: string): string[] =>
  valuesOf(fields, name).flatMap((value) =>
    value
      .toLowerCase()
      .split(",")
      .map((part) => part.trim()),
  );

const originForm = (target: string): string => {
  const [, rest] = /^https?:\/\/[^/?]+(.*)$/i.exec(target) ?? [];
  if (rest === undefined) return target;
  return rest.startsWith("/") ? rest : `/${rest}`;
};
