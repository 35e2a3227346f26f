/**
 * For tests of the agent: an agent on a real database between a control plane that does what the test
 * says, and an application that answers when the test lets it.
 */
import { createServer, type Server } from "node:http";
import { request } from "undici";
import { type AgentStatus, agentStatusSchema } from "../../contract/cell-protocol.ts";
import { headers } from "../../contract/headers.ts";
import { parseCellId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { systemRandom } from "../../runtime/random.ts";
import { type CellStore, createCellStore, storeRoles } from "../../tests/cell-store.ts";
import type { TestPostgres } from "../../tests/postgres.ts";
import { type Agent, startAgent } from "./agent.ts";
import type { AgentOptions } from "./agent-parts.ts";
import type { AgentConfig } from "./config.ts";
import type { AgentEvents } from "./events.ts";
import { closeNow, type FakeControl, listenUrl, startFakeControl } from "./fake-control.fixture.ts";

export const waitMs = 50_000;

/** Waits for a condition, and says which one did not come. */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + waitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export type FakeApp = {
  readonly url: string;
  /** Raw headers of each request, as flat lists. */
  readonly seen: Array<readonly string[]>;
  /** From now on answers, or the next so many, wait; call the result to let them go. */
  readonly hold: (next?: number) => () => void;
  readonly server: Server;
  readonly close: () => Promise<void>;
};

export async function startFakeApp(): Promise<FakeApp> {
  const seen: Array<readonly string[]> = [];
  let held: Promise<void> = Promise.resolve();
  let heldLeft = 0;
  const server = createServer((req, res) => {
    if (req.url === "/livez") {
      res.end("ok");
      return;
    }
    seen.push(req.rawHeaders);
    req.resume();
    const turn = heldLeft > 0 ? held : Promise.resolve();
    heldLeft -= 1;
    req.on("end", () => {
      void turn.then(() => {
        // What an application says under our prefix must not reach a router.
        res.writeHead(201, {
          "x-app": "yes",
          [headers.confirm]: "cell=forged;epoch=9;lease=9",
          [headers.notAdmitted]: req.headers[headers.nonce] ?? "guessed",
        });
        res.end("made");
      });
    });
  });
  return {
    url: await listenUrl(server),
    seen,
    server,
    hold: (next = Number.POSITIVE_INFINITY) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      held = promise;
      heldLeft = next;
      return resolve;
    },
    close: () => closeNow(server),
  };
}

export type Secrets = Partial<
  Pick<
    AgentOptions,
    "queryDatabaseUrl" | "replicaDatabaseUrls" | "storeDatabaseUrls" | "standbyServer"
  >
>;
export type LogLine = { readonly event: string } & Readonly<Record<string, unknown>>;

export async function startTestAgent(options: {
  readonly server: TestPostgres;
  readonly store: CellStore;
  readonly control: FakeControl;
  readonly app: { readonly url: string };
  readonly lines?: LogLine[];
  readonly config?: Partial<AgentConfig>;
  readonly secrets?: Secrets;
}): Promise<Agent> {
  const any = { host: "127.0.0.1", port: 0 };
  return startAgent({
    config: {
      cell: must(parseCellId(options.store.name), "cell id"),
      listen: any,
      admin: any,
      services: [
        { name: "default", health: undefined, upstreams: [options.app.url], replicas: [] },
      ],
      queryDatabaseUrl: undefined,
      replicaLagMs: 1000,
      goldMs: 2000,
      table: undefined,
      routerSignatures: "off",
      controlPlane: options.control.url,
      databaseUrl: "env:UNUSED",
      stores: [],
      token: "env:UNUSED",
      endpoint: undefined,
      ...options.config,
    },
    ...options.secrets,
    databaseUrl: options.server.url(options.store.name, storeRoles.agentRole),
    token: "agent-token",
    clock: systemClock,
    random: systemRandom,
    log: createLog<AgentEvents>({
      clock: systemClock,
      part: "agent",
      level: "info",
      write: (line) => options.lines?.push(JSON.parse(line)),
    }),
  });
}

export const acmeKey = "default/tenant/acme";

/** One cell for one test: database, control plane, application, and agents as the test starts them. */
export type AgentBench = {
  readonly store: CellStore;
  readonly control: FakeControl;
  readonly app: FakeApp;
  readonly start: (config?: Partial<AgentConfig>, secrets?: Secrets) => Promise<Agent>;
  /** An agent that serves the tenant acme. */
  readonly serving: (config?: Partial<AgentConfig>, secrets?: Secrets) => Promise<Agent>;
  readonly ask: (agent: Agent, more?: Partial<Asked>) => Promise<GateAnswer>;
  /** The control plane has been told that the revision is applied. */
  readonly applied: (revision: number) => Promise<void>;
  readonly events: (name: string) => readonly LogLine[];
  /** As the application writes one, for acme. */
  readonly insertOrder: () => Promise<void>;
  readonly close: () => Promise<void>;
};

export async function openBench(server: TestPostgres, cell: string): Promise<AgentBench> {
  const lines: LogLine[] = [];
  const stops: Array<() => Promise<unknown>> = [];
  const store = await createCellStore(server, cell, { mode: "strict" });
  stops.push(() => store.close());
  const control = await startFakeControl();
  stops.push(() => control.close());
  const app = await startFakeApp();
  stops.push(() => app.close());
  const start: AgentBench["start"] = async (config = {}, secrets = {}) => {
    const agent = await startTestAgent({ server, store, control, app, lines, config, secrets });
    stops.push(() => agent.close());
    return agent;
  };
  const ask: AgentBench["ask"] = (agent, more = {}) =>
    askGate(agent.endpoint, { cell: store.name, ...more });
  const applied = (revision: number) =>
    until(`revision ${revision} is acknowledged`, () => control.acknowledged() >= revision);
  return {
    ...{ store, control, app, start, ask, applied },
    serving: async (config, secrets) => {
      const agent = await start(config, secrets);
      await applied(control.own(acmeKey, "active"));
      await until("acme is served", async () => (await ask(agent)).status === 201);
      app.seen.length = 0;
      return agent;
    },
    events: (name) => lines.filter((line) => line.event === name),
    insertOrder: async () => {
      await store.app.query("begin");
      await store.app.query("select cellfleet.enter($1, 1)", [acmeKey]);
      await store.app.query(
        "insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)",
      );
      await store.app.query("commit");
    },
    close: async () => {
      for (const stop of stops.toReversed()) await stop();
    },
  };
}

export type GateAnswer = {
  readonly status: number;
  readonly header: (name: string) => string | undefined;
  readonly body: string;
  readonly code: string | undefined;
};

export type Asked = {
  readonly cell: string;
  readonly tenant?: string;
  readonly epoch?: number;
  readonly method?: "GET" | "POST";
  readonly path?: string;
  readonly body?: string;
  /** Further headers; undefined leaves one out. */
  readonly extra?: Readonly<Record<string, string | undefined>>;
};

/** A request as a router would send it. */
export async function askGate(endpoint: string, options: Asked): Promise<GateAnswer> {
  const tenant = options.tenant ?? "acme";
  const own: Record<string, string | undefined> = {
    [headers.tenant]: tenant,
    [headers.keyspace]: "default",
    [headers.key]: `default/tenant/${tenant}`,
    [headers.epoch]: String(options.epoch ?? 1),
    [headers.cell]: options.cell,
    [headers.nonce]: "nonce-1",
    ...options.extra,
  };
  const sent = Object.entries(own).flatMap(([name, value]) =>
    value === undefined ? [] : [name, value],
  );
  const response = await request(`${endpoint}${options.path ?? "/things"}`, {
    method: options.method ?? "GET",
    headers: sent,
    ...(options.body === undefined ? {} : { body: options.body }),
  });
  const header = (name: string) => {
    const value = response.headers[name];
    return Array.isArray(value) ? value.join(",") : value;
  };
  return {
    status: response.statusCode,
    header,
    body: await response.body.text(),
    code: header(headers.error),
  };
}

export async function statusOf(agent: Agent): Promise<AgentStatus> {
  const response = await request(`${agent.admin}/cellfleet/status`);
  return agentStatusSchema.parse(await response.body.json());
}
