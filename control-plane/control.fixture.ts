/**
 * A control plane for tests, over a real database and a real socket: the app with the machine
 * endpoints, a publisher, and calls as routers and agents make them. No loops decide anything here.
 */
import { serve } from "@hono/node-server";
import {
  type AgentSyncRequest,
  type AgentSyncResponse,
  agentSyncResponseSchema,
  type RouterSyncRequest,
  type RouterSyncResponse,
  routerSyncResponseSchema,
} from "../contract/cell-protocol.ts";
import type { CreateCell, Role } from "../contract/control-api.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { createLog } from "../runtime/log.ts";
import { createMetrics } from "../runtime/metrics.ts";
import { systemRandom } from "../runtime/random.ts";
import { createSigner, createVerifier, generateKey } from "../runtime/signing.ts";
import { hashSecret, newSecret } from "./api/auth.ts";
import type { ApiContext } from "./api/context.ts";
import type { Endpoint } from "./api/endpoint.ts";
import { machineAgentEndpoints } from "./api/machine-agent.ts";
import { machineRouterEndpoints } from "./api/machine-router.ts";
import { pairTokens } from "./api/machine-standby.ts";
import { type ControlApp, createApp } from "./app.ts";
import { type Database, openDatabase, prepareDatabase } from "./store/database.ts";
import { channels, startListener } from "./store/notify.ts";
import { cell } from "./store/schema.ts";
import { insertToken } from "./store/tokens.ts";
import { createWakeHub } from "./store/wake-hub.ts";
import { type Publisher, startPublisher } from "./work/publish.ts";

export type ControlFixture = {
  readonly database: Database;
  readonly context: ApiContext;
  readonly publisher: Publisher;
  readonly origin: string;
  readonly verifier: ReturnType<typeof createVerifier>;
  /** Faults of the publisher and the listener, newest last. */
  readonly troubles: unknown[];
  readonly token: (role: Role, subject?: string) => Promise<string>;
  readonly client: (role: Role, subject?: string) => Promise<JsonClient>;
  readonly close: () => Promise<void>;
};

export const fixtureKeys = generateKey("test-key");

type Served = { readonly origin: string; readonly close: () => void };

async function listen(app: ControlApp): Promise<Served> {
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 });
  await new Promise<void>((resolve) => server.once("listening", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    origin: `http://127.0.0.1:${port}`,
    close: () => {
      server.close();
      if ("closeAllConnections" in server) server.closeAllConnections();
    },
  };
}

function makeContext(database: Database): ApiContext {
  return {
    database,
    hub: createWakeHub(systemClock),
    clock: systemClock,
    random: systemRandom,
    log: createLog({ clock: systemClock, part: "test", level: "error", write: () => {} }),
    metrics: createMetrics(),
    settings: {
      ...{ instance: "test", leaseTtlMs: 1_200_000, failover: "suggest" },
      standbys: {
        pairToken: pairTokens(createSigner(fixtureKeys.privateKey)),
        promiseMs: 1_200_000,
      },
    },
  };
}

async function makeToken(database: Database, role: Role, subject?: string): Promise<string> {
  const secret = newSecret(systemRandom);
  await database.transaction((tx) =>
    insertToken(tx, {
      id: `tok-${systemRandom.hex(6)}`,
      name: `${role} ${subject ?? ""}`,
      role,
      subject: subject ?? null,
      hash: hashSecret(secret),
      expiresAt: null,
    }),
  );
  return secret;
}

export async function startControl(
  url: string,
  more: (context: ApiContext, publisher: Publisher) => readonly Endpoint[] = () => [],
): Promise<ControlFixture> {
  const troubles: unknown[] = [];
  const onError = (error: unknown) => troubles.push(error);
  const database = openDatabase({ url, onConnectionError: onError });
  await prepareDatabase(database, systemRandom);
  const context = makeContext(database);
  const publisher = startPublisher({
    database,
    clock: systemClock,
    random: systemRandom,
    signer: createSigner(fixtureKeys.privateKey),
    onError,
  });
  const listener = startListener({
    url,
    clock: systemClock,
    onWake: (channel, payload) => {
      context.hub.wake(channel, payload);
      if (channel === channels.revision) publisher.wake();
    },
    onError,
  });
  const app = createApp(context, [
    ...machineRouterEndpoints(context, publisher),
    ...machineAgentEndpoints(context, publisher),
    ...more(context, publisher),
  ]);
  const served = await listen(app);
  const clients: JsonClient[] = [];
  return {
    database,
    context,
    publisher,
    origin: served.origin,
    verifier: createVerifier(fixtureKeys.publicKeys),
    troubles,
    token: (role, subject) => makeToken(database, role, subject),
    client: async (role, subject) => {
      const client = createJsonClient({
        origin: served.origin,
        token: await makeToken(database, role, subject),
        unreachable: "CONTROL_PLANE_UNREACHABLE",
      });
      clients.push(client);
      return client;
    },
    close: async () => {
      for (const client of clients) await client.close();
      await publisher.close();
      await listener.close();
      served.close();
      await database.close();
    },
  };
}

/** A cell that is open for placement, as `cell create` leaves it. */
export async function openCell(
  database: Database,
  id: string,
  capacity: Partial<NonNullable<CreateCell["capacity"]>> = {},
): Promise<void> {
  await database.read.insert(cell).values({
    id,
    state: "active",
    goal: "active",
    health: "healthy",
    region: "local",
    failureDomain: id,
    tiers: [],
    dedicated: false,
    provider: "none",
    capacityTenants: capacity.tenants ?? 100_000,
    capacityBytes: capacity.bytes ?? 2 ** 40,
    capacityRps: capacity.rps ?? 10_000,
    maxTenantShare: capacity.maxTenantShare ?? 0.5,
    services: {},
    stores: {},
  });
}

export const routerRequest = (
  router: string,
  change: Partial<Record<keyof RouterSyncRequest, unknown>> = {},
) => ({
  router,
  instance: "instance-1",
  revision: 0,
  epochMax: 0,
  checksum: "",
  admin: "http://127.0.0.1:1",
  release: "test",
  nonce: "nonce-1",
  waitMs: 0,
  seen: [],
  ...change,
});

export const callRouter = (
  client: JsonClient,
  router: string,
  change: Partial<Record<keyof RouterSyncRequest, unknown>> = {},
  signal?: AbortSignal,
): Promise<RouterSyncResponse> =>
  client.call({
    method: "POST",
    path: "/v1/machine/router/sync",
    body: routerRequest(router, change),
    schema: routerSyncResponseSchema,
    timeoutMs: 40_000,
    ...(signal === undefined ? {} : { signal }),
  });

export type AgentChange = Partial<Record<keyof Omit<AgentSyncRequest, "database">, unknown>> & {
  readonly database?: Partial<AgentSyncRequest["database"]>;
};

export const agentRequest = (cellId: string, change: AgentChange = {}) => ({
  cell: cellId,
  instance: `${cellId}-agent-1`,
  primary: true,
  endpoint: "http://127.0.0.1:9301",
  release: "test",
  schemaVersion: "1",
  appliedRevision: 0,
  epochMax: 0,
  refused: [],
  app: { reachable: true },
  wantLease: false,
  wantIdRanges: [],
  stats: [],
  waitMs: 0,
  ...change,
  database: {
    systemIdentifier: `1000-${cellId}`,
    timeline: 1,
    boot: "2026-11-01T00:00:00.000Z",
    grant: 0,
    reachable: true,
    ...change.database,
  },
});

export const callAgent = (
  client: JsonClient,
  cellId: string,
  change: AgentChange = {},
  signal?: AbortSignal,
): Promise<AgentSyncResponse> =>
  client.call({
    method: "POST",
    path: "/v1/machine/agent/sync",
    body: agentRequest(cellId, change),
    schema: agentSyncResponseSchema,
    timeoutMs: 40_000,
    ...(signal === undefined ? {} : { signal }),
  });

/** Calls until the condition holds; a test that waits for ever fails by its own time limit. */
export async function eventually<T>(
  look: () => Promise<T>,
  isGood: (value: T) => boolean,
): Promise<T> {
  for (;;) {
    const value = await look();
    if (isGood(value)) return value;
    await systemClock.sleep(20);
  }
}

export const soleRow = <T>(rows: readonly T[]): T => must(rows[0], "row");
