/**
 * What this router believes, and by what it is believed: tokens of clients are verified with their
 * issuers' keys, requests to cells are signed with its own. One part, followed by the table.
 */

import type { SignedRequest } from "../../contract/request-signature.ts";
import type { AnnouncedKey } from "../../contract/router-key.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Random } from "../../runtime/random.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import { createTrustMetrics } from "../observe/trust-metrics.ts";
import { createKeySets } from "../receive/jwt-key-sets.ts";
import { createTokenReader, type TokenReader } from "../receive/jwt-reader.ts";
import { KeyRing } from "./key-ring.ts";
import { RequestSigner } from "./request-signer.ts";

/** The value of the signature's header; undefined in static mode. */
export type SignRequest = (request: SignedRequest) => string | undefined;

export type Trust = {
  readonly tokens: TokenReader;
  readonly sign: SignRequest;
  /** Reads or makes the router's own key; before the table is opened. */
  readonly open: () => Promise<void>;
  /** After each change of the table. */
  readonly follow: (table: TableState) => void;
  /** For the control plane; undefined in static mode. */
  readonly announced: () => AnnouncedKey[] | undefined;
  /** False until the table has named the router's key: cells would refuse its requests. */
  readonly ready: () => boolean;
  readonly close: () => Promise<void>;
};

export function createTrust(options: {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<RouterEvents>;
  readonly registry: Metrics;
  /** One thread of a router makes its keys; the others read them. */
  readonly ownsKeys: boolean;
}): Trust {
  const { config, clock, random, log, registry, ownsKeys } = options;
  const metrics = createTrustMetrics(registry);
  const stateDir = config.source.kind === "control-plane" ? config.source.stateDir : undefined;
  const keySets = createKeySets({
    ...{ stateDir, clock, random, log, metrics },
    limits: { refreshMs: config.jwksRefreshMs, cooldownMs: config.jwksCooldownMs },
  });
  registry.gaugeFrom(
    "cellfleet_router_jwks_age_seconds",
    "Since the keys of an issuer were read, of the oldest; 0 without any.",
    () => keySets.ageMs() / 1000,
    "max",
  );
  const tokens = createTokenReader({
    nowMs: clock.nowMs,
    keySet: keySets.get,
    onVerdict: (result) => metrics.tokens.inc({ result }),
  });
  const signer = new RequestSigner({
    nowMs: clock.nowMs,
    onSigned: () => metrics.signatures.inc({}),
  });
  const ring =
    stateDir === undefined
      ? undefined
      : new KeyRing({
          ...{ stateDir, ownsKeys, signer, clock, random, log },
          ageMsMax: config.routerKeyHours * 3_600_000,
        });
  return {
    tokens,
    sign: (request) => signer.sign(request),
    open: async () => ring?.open(),
    follow: (table) => {
      keySets.follow(table.lists.tenantSources);
      ring?.follow(table);
    },
    announced: () => ring?.announced,
    ready: () => ring?.ready ?? true,
    close: async () => {
      await ring?.close();
      await keySets.close();
    },
  };
}
