/** How this router speaks TLS to cells: from files, followed. Without settings the system's trust holds. */
import type { Clock } from "../../runtime/clock.ts";
import type { EndpointTls } from "../../runtime/http/endpoint.ts";
import { type FollowedTls, followTls } from "../../runtime/tls/followed.ts";

export type CellTlsOptions = {
  readonly clock: Clock;
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly servername: string | undefined;
  readonly everyMs: number;
  readonly onRefused: (reason: string) => void;
};

export type CellTls = {
  /** The same value until something has changed. */
  readonly current: () => EndpointTls;
  /** Before the first connection. Throws CONFIG_INVALID. */
  readonly open: () => Promise<void>;
  readonly reload: () => Promise<void>;
  readonly close: () => Promise<void>;
  /** Of the certificate that is shown to cells; undefined without one. */
  readonly notAfterMs: () => number | undefined;
};

export function createCellTls(options: CellTlsOptions): CellTls {
  const { clock, ca, cert, key, servername, everyMs, onRefused } = options;
  let current: EndpointTls = { context: undefined, servername };
  let followed: FollowedTls | undefined;
  return {
    current: () => current,
    open: async () => {
      if (ca === undefined && cert === undefined) return;
      followed = await followTls({
        ...{ clock, everyMs, onRefused, files: { ca, cert, key } },
        onChange: ({ context }) => {
          current = { context, servername };
        },
      });
      current = { context: followed.current().context, servername };
    },
    reload: async () => followed?.reload(),
    close: async () => followed?.close(),
    notAfterMs: () => followed?.current().notAfterMs,
  };
}
