/**
 * TLS at the gate: the agent's own certificate, and the authority that routers must show one of. With
 * both, a request on the cell's network that comes from no router is refused before it is read.
 */
import type { Server, ServerOptions } from "node:http";
import { createServer } from "node:https";
import type { Clock } from "../../runtime/clock.ts";
import type { Lifecycle } from "../../runtime/lifecycle.ts";
import {
  followTls,
  type TlsFiles,
  type TlsMaterial,
  tlsVersionMin,
} from "../../runtime/tls/followed.ts";
import type { AgentLog } from "./events.ts";

const handshakeMs = 10_000;
const rereadMs = 60_000;

export type GateTls = {
  readonly createServer: (settings: ServerOptions) => Server;
};

/** Throws CONFIG_INVALID for files that cannot be used. */
export async function openGateTls(
  files: TlsFiles,
  { clock, log }: { readonly clock: Clock; readonly log: AgentLog },
  lifecycle: Lifecycle,
): Promise<GateTls> {
  const servers: Array<{ setSecureContext: (options: TlsServing) => void }> = [];
  const followed = await followTls({
    ...{ clock, files, everyMs: rereadMs },
    onChange: (material) => {
      for (const server of servers) server.setSecureContext(servingOf(material));
    },
    onRefused: (reason) => log.event("tls.refused", { reason }, "error"),
  });
  lifecycle.onClose("tls", followed.close);
  return {
    createServer: (settings) => {
      const server = createServer({
        ...settings,
        ...servingOf(followed.current()),
        handshakeTimeout: handshakeMs,
        ALPNProtocols: ["http/1.1"],
      });
      // node:https would take it for a bad request and answer in clear.
      server.removeAllListeners("tlsClientError");
      server.on("tlsClientError", (_error, socket) => void socket.destroy());
      servers.push(server);
      return server;
    },
  };
}

type TlsServing = Omit<TlsMaterial, "context" | "notAfterMs"> & {
  readonly minVersion: typeof tlsVersionMin;
  readonly requestCert: boolean;
  readonly rejectUnauthorized: boolean;
};

function servingOf({ context: _context, notAfterMs: _end, ...texts }: TlsMaterial): TlsServing {
  const asks = texts.ca !== undefined;
  return { ...texts, minVersion: tlsVersionMin, requestCert: asks, rejectUnauthorized: asks };
}
