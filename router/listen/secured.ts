/** What TLS says of the connection that a request came on. */
import type { IncomingMessage } from "node:http";

export type Secured = {
  /** The name that the client asked for in its handshake (SNI); undefined: none. */
  readonly servername: string | undefined;
};

/** Undefined without TLS. Of HTTP/2, too, whose requests stand in for the session's socket. */
export function securedBy(req: IncomingMessage): Secured | undefined {
  const { socket } = req;
  if (Reflect.get(socket, "encrypted") !== true) return undefined;
  const name: unknown = Reflect.get(socket, "servername");
  return { servername: typeof name === "string" && name !== "" ? name : undefined };
}
