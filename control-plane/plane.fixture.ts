/**
 * Whole control planes for tests, over a real database and real sockets, with cells and routers that
 * speak the machine API as the real ones do, but own no database of their own: an agent that applies
 * what it is told, a gate that answers probes, a router that acknowledges, a provider that starts them.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { z } from "zod";
import type {
  AgentSyncRequest,
  AgentSyncResponse,
  OwnershipChange,
  UnclassedTables,
} from "../contract/cell-protocol.ts";
import { type Op, opSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import type { FailoverPolicy } from "../contract/failover-api.ts";
import type { providedStates } from "../contract/provider-api.ts";
import type { CellStage } from "../contract/routing-table.ts";
import { systemClock } from "../runtime/clock.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { systemRandom } from "../runtime/random.ts";
import { createSigner } from "../runtime/signing.ts";
import { callAgent, callRouter, fixtureKeys } from "./control.fixture.ts";
import { type ControlPlane, startControlPlane } from "./control-plane.ts";

export const adminSecret = "the-admin-of-the-tests";

export type Plane = ControlPlane & {
  readonly client: JsonClient;
  readonly get: <T>(path: string, schema: z.ZodType<T>) => Promise<T>;
  readonly send: <T>(
    method: "POST" | "PUT" | "DELETE",
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    headers?: Readonly<Record<string, string>>,
  ) => Promise<T>;
  /** A request as it is, for what a client of ours would never send. */
  readonly raw: (path: string, init?: RequestInit, secret?: string | null) => Promise<Response>;
};

export async function startPlane(
  url: string,
  options: {
    readonly instance?: string;
    readonly providerUrl?: string;
    /** Where an earlier one listened, for those who know no other address. */
    readonly port?: number;
    readonly lines?: string[];
    readonly failover?: FailoverPolicy;
    readonly leaseTtlMs?: number;
  } = {},
): Promise<Plane> {
  const control = await startControlPlane({
    listen: { host: "127.0.0.1", port: options.port ?? 0 },
    admin: { host: "127.0.0.1", port: 0 },
    databaseUrl: url,
    connections: 12,
    signer: createSigner(fixtureKeys.privateKey),
    provider:
      options.providerUrl === undefined
        ? undefined
        : { url: options.providerUrl, token: "provider" },
    bootstrapToken: adminSecret,
    leaseTtlMs: options.leaseTtlMs ?? 1_200_000,
    ...(options.failover === undefined ? {} : { failover: options.failover }),
    instance: options.instance ?? "plane-1",
    clock: systemClock,
    random: systemRandom,
    logTo: {
      clock: systemClock,
      part: "control-plane",
      level: "debug",
      write: (line) => options.lines?.push(line),
    },
  });
  const client = createJsonClient({
    origin: control.url,
    token: adminSecret,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  return {
    ...control,
    client,
    get: (path, schema) => client.call({ method: "GET", path, schema, timeoutMs: 40_000 }),
    send: (method, path, body, schema, headers = {}) =>
      client.call({ method, path, body, schema, headers, timeoutMs: 40_000 }),
    raw: (path, init = {}, secret = adminSecret) =>
      fetch(`${control.url}${path}`, {
        ...init,
        headers: {
          ...(secret === null ? {} : { authorization: `Bearer ${secret}` }),
          ...init.headers,
        },
      }),
    close: async () => {
      await client.close();
      await control.close();
    },
  };
}

/** Follows an operation to its end, by long poll. */
export async function finish(plane: Pick<Plane, "get">, op: Op): Promise<Op> {
  let seen = op;
  while (seen.state === "running" || seen.state === "pending") {
    seen = await plane.get(`/v1/ops/${seen.id}?after=${seen.version}&waitMs=5000`, opSchema);
  }
  return seen;
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const shut = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });

export type FakeCell = {
  readonly gate: string;
  /** Applies changes while true; a deaf cell still calls. */
  applies: boolean;
  /** Removes rows when it is told to, and confirms it, while true. */
  purges: boolean;
  /** Obeys a change of stage while true. */
  obeysStage: boolean;
  appReachable: boolean;
  /** What it counted as refusable, and how many tables it guards. */
  wouldRefuse: Record<string, number>;
  guardedTables: number;
  /** Tables that its manifest forgets; undefined: an agent that does not tell. */
  unclassed: UnclassedTables | undefined;
  readonly stage: () => CellStage;
  readonly stageNumber: () => number;
  /** What it was told about each key last. */
  readonly keys: ReadonlyMap<string, OwnershipChange>;
  /** Keys whose rows it was told to remove, in order; once more for each time. */
  readonly purgedKeys: readonly string[];
  readonly appliedRevision: () => number;
  readonly stop: () => Promise<void>;
};

const stageOf = (cell: FakeCell) => ({
  applied: cell.stage(),
  number: cell.stageNumber(),
  wouldRefuse: cell.wouldRefuse,
  guardedTables: cell.guardedTables,
  ...(cell.unclassed === undefined ? {} : { unclassed: cell.unclassed }),
});

type StageAt = { stage: CellStage; number: number };

/** As a database does: what was counted earlier changes nothing. */
function obeyStage(at: StageAt, { stage, stageNumber = 0 }: AgentSyncResponse): void {
  if (stage === undefined || stageNumber <= at.number) return;
  at.stage = stage;
  at.number = stageNumber;
}

/** A cell's agent and gate. It goes on calling when the control plane is away. */
export async function startFakeCell(options: {
  readonly origin: () => string;
  readonly token: string;
  readonly cell: string;
  /** What the cell's database remembers between two lives. */
  readonly memory?: { appliedRevision: number; grant: number };
  readonly services?: readonly string[];
}): Promise<FakeCell> {
  const server = createServer((_req, res) => res.writeHead(403).end());
  const gate = await listen(server);
  const stop = new AbortController();
  const memory = options.memory ?? { appliedRevision: 0, grant: 0 };
  let leased = false;
  const at: StageAt = { stage: "pass-through", number: 0 };
  const keys = new Map<string, OwnershipChange>();
  const purgedKeys: string[] = [];
  let purged: NonNullable<AgentSyncRequest["purged"]> = [];
  const cell: FakeCell = {
    gate,
    applies: true,
    purges: true,
    obeysStage: true,
    appReachable: true,
    wouldRefuse: {},
    guardedTables: 0,
    unclassed: { count: 0, names: [] },
    stage: () => at.stage,
    stageNumber: () => at.number,
    keys,
    purgedKeys,
    appliedRevision: () => memory.appliedRevision,
    stop: async () => {
      stop.abort();
      await calling;
      await shut(server);
    },
  };

  const report = () => ({
    endpoint: gate,
    instance: `${options.cell}-${gate}`,
    appliedRevision: memory.appliedRevision,
    epochMax: 0,
    app: { reachable: cell.appReachable },
    wantLease: !leased,
    waitMs: cell.purges && purged.length > 0 ? 0 : 500,
    ...(options.services === undefined ? {} : { services: options.services }),
    stage: stageOf(cell),
    purged: cell.purges ? purged : [],
    database: { grant: memory.grant, boot: gate },
  });

  function apply(answer: AgentSyncResponse): void {
    for (const change of answer.changes) {
      const { key, op, attempt } = change;
      const before = keys.get(key);
      // An open purge is told with every answer; the same command is no new one.
      const isKnown = before?.purge === true && before.op === op && before.attempt === attempt;
      keys.set(key, change);
      if (change.purge !== true || isKnown) continue;
      purgedKeys.push(key);
      purged.push({ key, op, attempt, rows: { "public.orders": 3 } });
    }
    memory.appliedRevision = Math.max(memory.appliedRevision, answer.revision);
  }

  async function call(client: JsonClient): Promise<void> {
    const said = report();
    const answer = await callAgent(client, options.cell, said, stop.signal);
    purged = purged.filter((one) => !said.purged.includes(one));
    if (cell.obeysStage) obeyStage(at, answer);
    if (answer.lease !== undefined) {
      leased = true;
      memory.grant = answer.lease.grant;
    }
    if (cell.applies) apply(answer);
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      const client = createJsonClient({
        origin: options.origin(),
        token: options.token,
        unreachable: "CONTROL_PLANE_UNREACHABLE",
      });
      try {
        while (!stop.signal.aborted) await call(client);
      } catch {
        // The control plane is away, or does not know this token yet: an agent calls again.
        await systemClock.sleep(50, stop.signal);
      } finally {
        await client.close();
      }
    }
  }
  const calling = run();
  return cell;
}

export type FakeRouter = { acks: boolean; readonly stop: () => Promise<void> };

/** Serves every revision it hears of, at once, unless told not to. */
export function startFakeRouter(options: {
  readonly origin: () => string;
  readonly token: string;
  readonly id: string;
}): FakeRouter {
  const stop = new AbortController();
  let revision = 0;
  const router: FakeRouter = {
    acks: true,
    stop: async () => {
      stop.abort();
      await calling;
    },
  };
  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      const client = createJsonClient({
        origin: options.origin(),
        token: options.token,
        unreachable: "CONTROL_PLANE_UNREACHABLE",
      });
      try {
        while (!stop.signal.aborted) {
          const change = { revision, waitMs: 300 };
          const answer = await callRouter(client, options.id, change, stop.signal);
          if (router.acks) revision = Math.max(revision, answer.revision);
          else await systemClock.sleep(20, stop.signal);
        }
      } catch {
        await systemClock.sleep(50, stop.signal); // Away: a router calls again.
      } finally {
        await client.close();
      }
    }
  }
  const calling = run();
  return router;
}

type ProvidedState = (typeof providedStates)[number];

export type FakeProvider = {
  readonly url: string;
  /** Every action asked for, in order: `create cell-01`. */
  readonly asked: string[];
  readonly cells: Map<string, FakeCell>;
  /** Refuses this many calls before it works again. */
  failures: number;
  readonly stop: () => Promise<void>;
};

/** Runs fake cells, as the supervisor of `cellctl dev` runs real ones. */
export async function startFakeProvider(origin: () => string): Promise<FakeProvider> {
  const cells = new Map<string, FakeCell>();
  const states = new Map<string, ProvidedState>();
  const tokens = new Map<string, string>();
  const memories = new Map<string, { appliedRevision: number; grant: number }>();

  async function start(cell: string): Promise<void> {
    if (cells.has(cell)) return;
    const memory = memories.get(cell) ?? { appliedRevision: 0, grant: 0 };
    memories.set(cell, memory);
    const token = tokens.get(cell) ?? "";
    cells.set(cell, await startFakeCell({ origin, token, cell, memory }));
  }
  async function halt(cell: string): Promise<void> {
    await cells.get(cell)?.stop();
    cells.delete(cell);
  }
  async function act(cell: string, action: string, agentToken: string | undefined): Promise<void> {
    if (agentToken !== undefined && agentToken !== tokens.get(cell)) {
      tokens.set(cell, agentToken);
      await halt(cell);
    }
    if (action === "create" || action === "start") await start(cell);
    else await halt(cell);
    const after = { create: "running", start: "running", stop: "stopped", kill: "dead" } as const;
    states.set(cell, action in after ? after[action as keyof typeof after] : "absent");
  }

  const provider: FakeProvider = {
    url: "",
    asked: [],
    cells,
    failures: 0,
    stop: async () => {
      for (const cell of [...cells.keys()]) await halt(cell);
      await shut(server);
    },
  };
  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const [, , , cell = "", action] = (req.url ?? "").split("/");
    const chunks: Buffer[] = [];
    for await (const chunk of req) chunks.push(chunk);
    provider.asked.push(`${action ?? "look"} ${cell}`);
    if (provider.failures > 0) {
      provider.failures -= 1;
      res.writeHead(502).end("{}");
      return;
    }
    if (action !== undefined) {
      const { agentToken } = JSON.parse(Buffer.concat(chunks).toString("utf8"));
      await act(cell, action, agentToken);
    }
    const gate = cells.get(cell)?.gate;
    const services = gate === undefined ? {} : { default: { endpoints: [gate] } };
    const state = states.get(cell) ?? "absent";
    res.end(JSON.stringify({ id: cell, state, text: `it is ${state}`, services, stores: {} }));
  }
  const server = createServer((req, res) => {
    void answer(req, res);
  });
  return Object.assign(provider, { url: await listen(server) });
}

/** The code of a refusal; throws when the call was accepted. */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CellError) return error.code;
    throw error;
  }
  throw new Error("the call was accepted");
}
