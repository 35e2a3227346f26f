/** Opens a listening socket, or says in an operator's words why the address cannot be had. */
import type { AddressInfo, Server } from "node:net";
import { CellError } from "../contract/errors.ts";

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: "another process listens there",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "this user may not listen there",
  ENOTSUP: "this system cannot share an address among listeners (SO_REUSEPORT)",
  ENOTFOUND: "the name cannot be resolved",
};

export type ListenAt = {
  readonly host: string;
  readonly port: number;
  /** Several may listen on one address, and the system spreads the connections. */
  readonly reusePort?: boolean;
};
/** On the socket of another server, which has it no more: what waits in its queue is not lost. */
export type ListenWith = { readonly socket: Server };

/**
 * Resolves when the server accepts connections; port 0 lets the system choose.
 * Throws CONFIG_INVALID for an address that is taken, foreign or forbidden. The caller closes the server.
 */
export async function listenOn(server: Server, at: ListenAt | ListenWith): Promise<AddressInfo> {
  if ("socket" in at) return listenWith(server, at);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      const { port, host, reusePort = false } = at;
      server.listen({ port, host, reusePort }, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const reason = reasons[code];
    if (reason === undefined) throw error;
    throw new CellError("CONFIG_INVALID", `Cannot listen on ${at.host}:${at.port}: ${reason}.`, {
      nextSteps: [
        ...(code === "EADDRINUSE" ? [`ss -ltnp 'sport = :${at.port}'   (who listens)`] : []),
        "choose another address, or port 0 for one that the system chooses",
      ],
      cause: error,
    });
  }
  return server.address() as AddressInfo;
}

async function listenWith(server: Server, { socket }: ListenWith): Promise<AddressInfo> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socket, () => {
      server.off("error", reject);
      resolve();
    });
  });
  return server.address() as AddressInfo;
}
