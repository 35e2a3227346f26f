/** How this router speaks TLS to cells: from files, followed. Without settings the system's trust holds. */
import type { Clock } from "../../runtime/clock.ts";
import type { EndpointTls, EndpointTlsSource } from "../../runtime/http/endpoint-tls.ts";
import type { Log } from "../../runtime/log.ts";
import { type FollowedTls, followTls } from "../../runtime/tls/followed.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";

export type CellTlsOptions = {
  readonly clock: Clock;
  readonly log: Log<RouterEvents>;
  readonly config: Pick<
    RouterConfig,
    "cellCa" | "cellCert" | "cellKey" | "cellTlsName" | "tlsReloadMs"
  >;
  readonly onRefused: () => void;
};

export type CellTls = EndpointTlsSource & {
  /** Before the first connection. Throws CONFIG_INVALID. */
  readonly open: () => Promise<void>;
  readonly reload: () => Promise<void>;
  readonly close: () => Promise<void>;
};

/** An endpoint that fails in the same way is told of so often, whatever the load. */
const tellAgainMs = 60_000;

export function createCellTls(options: CellTlsOptions): CellTls {
  const { clock, config, log } = options;
  const { cellCa: ca, cellCert: cert, cellKey: key, cellTlsName: servername } = config;
  let current: EndpointTls = { context: undefined, servername };
  let followed: FollowedTls | undefined;
  const told = new Map<string, { readonly reason: string; readonly atMs: number }>();
  return {
    current: () => current,
    onFailed: (endpoint, error) => {
      const atMs = clock.monotonicMs();
      const before = told.get(endpoint);
      if (before?.reason === error.message && atMs - before.atMs < tellAgainMs) return;
      told.set(endpoint, { reason: error.message, atMs });
      log.event("tls.failed", { endpoint, reason: error.message }, "error");
    },
    open: async () => {
      if (ca === undefined && cert === undefined) return;
      followed = await followTls({
        ...{ clock, everyMs: config.tlsReloadMs, files: { ca, cert, key } },
        onChange: ({ context }) => {
          current = { context, servername };
        },
        onRefused: (reason) => {
          options.onRefused();
          log.event("tls.refused", { name: "cells", reason, for: "cells" }, "error");
        },
      });
      current = { context: followed.current().context, servername };
    },
    reload: async () => followed?.reload(),
    close: async () => followed?.close(),
  };
}
