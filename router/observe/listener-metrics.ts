/** What the listeners count: who was not let in, and how long the certificates last. */
import type { Counter, Metrics } from "../../runtime/metrics.ts";
import { connectionRefusals } from "../listen/connections.ts";
import { handshakeFailures } from "../listen/server.ts";

export type ListenerMetrics = {
  readonly connectionsRefused: Counter;
  readonly handshakesFailed: Counter;
  readonly certificatesRefused: Counter;
};

const presets = (name: string, values: readonly string[]) =>
  values.map((value) => ({ [name]: value }));

export const createListenerMetrics = (metrics: Metrics): ListenerMetrics => ({
  connectionsRefused: metrics.counter(
    "cellfleet_router_connections_refused_total",
    "Connections of clients beyond a limit: of all of them, or of one peer.",
    presets("limit", connectionRefusals),
  ),
  handshakesFailed: metrics.counter(
    "cellfleet_router_tls_handshakes_failed_total",
    "TLS handshakes of clients that came to nothing, by reason.",
    presets("reason", handshakeFailures),
  ),
  certificatesRefused: metrics.counter(
    "cellfleet_router_tls_certificates_refused_total",
    "Certificates that were read and found unfit, by where they are used; those before them serve on.",
    presets("for", ["clients", "cells"]),
  ),
});
