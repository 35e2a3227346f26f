/**
 * For tests of the agent: a control plane that speaks the contract over real HTTP and does what the
 * test says. It repeats purges and questions until they are answered, as the real one does.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Server as NetServer } from "node:net";
import { request } from "undici";
import {
  type AgentSyncRequest,
  type AgentSyncResponse,
  agentSyncRequestSchema,
  agentSyncResponseSchema,
  type OwnershipState,
  type QueryAnswer,
  queryAnswerSchema,
} from "../../contract/cell-protocol.ts";
import type { CellStage } from "../../contract/routing-table.ts";

type Change = AgentSyncResponse["changes"][number];

export class FakeControl {
  /** Every call since the start, newest last. */
  readonly calls: AgentSyncRequest[] = [];
  /** Answers to operators' questions, as they came. */
  readonly queryAnswers: QueryAnswer[] = [];
  readonly settings = {
    ttlMs: 1_200_000,
    /** A grant is decided at once, and its answer is on its way for so long. */
    grantDelayMs: 0,
    /** 503 to everything; the connection itself is fine. */
    silent: false as boolean,
    leaseRefused: undefined as string | undefined,
    report: "nothing" as AgentSyncResponse["report"],
    /** Ids that are handed to whoever asks, per sequence. */
    idRangeSize: 1000,
    fleet: "fleet-1",
    stage: undefined as CellStage | undefined,
    /** Of the change of stage; undefined: as many as there were. */
    stageNumber: undefined as number | undefined,
    queries: [] as NonNullable<AgentSyncResponse["queries"]>,
    /** So many answers to questions are met with 503 first. */
    queryAnswersLost: 0,
    leaseMode: undefined as AgentSyncResponse["leaseMode"],
    partners: undefined as AgentSyncResponse["partners"],
    annex: undefined as AgentSyncResponse["annex"],
    /** It knows no such cell, whatever is asked. */
    forbidding: false as boolean,
    /** Who answers for the routing table. */
    tableOrigin: undefined as string | undefined,
  };
  readonly #server: Server;
  readonly #changes: Array<{ readonly revision: number; readonly change: Change }> = [];
  readonly #purges = new Set<Change>();
  readonly #waiting = new Set<() => void>();
  #revision = 0;
  #grant = 0;
  #idsTo = 0;
  #stageTold: CellStage | undefined;
  #stageChanges = 0;

  constructor() {
    this.#server = createServer((req, res) => {
      this.#serve(req, res).catch((error: unknown) => res.writeHead(500).end(String(error)));
    });
  }

  get server(): Server {
    return this.#server;
  }
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A new command about a key, under the next revision. */
  own(key: string, state: OwnershipState, epoch = 1): number {
    this.#add({ key, state, epoch });
    return this.#revision;
  }

  /** Drops the key and asks for a purge, again and again until it is reported. */
  purge(key: string, epoch = 1): void {
    this.#purges.add(this.#add({ key, state: "dropped", epoch, purge: true }));
  }

  /** The highest revision that a call acknowledged. */
  acknowledged(): number {
    return Math.max(0, ...this.calls.map((call) => call.appliedRevision));
  }

  close(): Promise<void> {
    this.#wake();
    return closeNow(this.#server);
  }

  #add(change: object): Change {
    this.#revision += 1;
    const op = `op_${String(this.#revision).padStart(12, "0")}`;
    const whole = { ...change, op, attempt: 0 } as Change;
    this.#changes.push({ revision: this.#revision, change: whole });
    this.#wake();
    return whole;
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (req.url === "/v1/machine/agent/query-answers") return this.#takeQueryAnswer(req, res);
    if (req.url !== "/v1/machine/agent/sync") return this.#passOn(req, res);
    const said = agentSyncRequestSchema.parse(JSON.parse(await readAll(req)));
    if (this.settings.silent) {
      res.writeHead(503).end();
      return;
    }
    if (this.settings.forbidding) {
      const error = { code: "CELL_UNKNOWN", message: "There is no such cell.", next_steps: [] };
      res.writeHead(404, { "content-type": "application/json" }).end(JSON.stringify({ error }));
      return;
    }
    this.calls.push(said);
    this.#forgetPurged(said);
    if (!this.#isNews(said) && said.waitMs > 0) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
        setTimeout(resolve, Math.min(said.waitMs, 300));
      });
    }
    const lease = await this.#grantLease(said);
    const answer = agentSyncResponseSchema.parse({ ...this.#answer(said), ...lease });
    res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
  }

  #forgetPurged(said: AgentSyncRequest): void {
    for (const { key, op } of said.purged ?? []) {
      for (const purge of this.#purges) {
        if (purge.key === key && purge.op === op) this.#purges.delete(purge);
      }
    }
  }

  #due(said: AgentSyncRequest): Change[] {
    return this.#changes
      .filter(({ revision, change }) =>
        change.purge === true ? this.#purges.has(change) : revision > said.appliedRevision,
      )
      .map(({ change }) => change);
  }

  #isNews(said: AgentSyncRequest): boolean {
    const { stage } = this.settings;
    if (stage !== undefined) this.#countStage(stage);
    return this.#due(said).length > 0 || (stage !== undefined && stage !== said.stage?.applied);
  }

  /** Each change of the setting is a new change of stage. */
  #countStage(stage: CellStage): number {
    if (stage !== this.#stageTold) this.#stageChanges += 1;
    this.#stageTold = stage;
    return this.settings.stageNumber ?? this.#stageChanges;
  }

  async #grantLease(said: AgentSyncRequest): Promise<object> {
    const { ttlMs, grantDelayMs, leaseRefused } = this.settings;
    if (leaseRefused !== undefined) return { leaseRefused };
    if (!said.wantLease) return {};
    this.#grant = Math.max(this.#grant, said.database.grant) + 1;
    const grant = this.#grant;
    await new Promise((resolve) => setTimeout(resolve, grantDelayMs));
    return { lease: { grant, ttlMs } };
  }

  #answer(said: AgentSyncRequest): object {
    const { fleet, report, stage, queries, idRangeSize, partners, annex, leaseMode } =
      this.settings;
    return {
      fleet,
      report,
      revision: this.#revision,
      changes: this.#due(said),
      more: false,
      keyspaces: [{ name: "default", strategy: "directory", guardMode: "strict" }],
      idRanges: said.wantIdRanges.map(({ sequence, floor }) => {
        const lo = Math.max(this.#idsTo, floor) + 1;
        this.#idsTo = lo + idRangeSize - 1;
        return { sequence, lo, hi: this.#idsTo };
      }),
      ...(partners === undefined ? {} : { partners }),
      ...(leaseMode === undefined ? {} : { leaseMode }),
      ...(annex === undefined ? {} : { annex }),
      ...(stage === undefined ? {} : { stage, stageNumber: this.#countStage(stage) }),
      queries: queries.filter(({ id }) => !this.queryAnswers.some((one) => one.id === id)),
    };
  }

  async #takeQueryAnswer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const answer = queryAnswerSchema.parse(JSON.parse(await readAll(req)));
    if (this.settings.queryAnswersLost > 0) {
      this.settings.queryAnswersLost -= 1;
      res.writeHead(503).end();
      return;
    }
    this.queryAnswers.push(answer);
    res.writeHead(200, { "content-type": "application/json" }).end('{"kept":true}');
  }

  /** To the one who speaks for the table. */
  async #passOn(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const body = await readAll(req);
    const answer = await request(`${this.settings.tableOrigin}${req.url}`, {
      method: req.method === "POST" ? "POST" : "GET",
      ...(body === "" ? {} : { body }),
    });
    res.writeHead(answer.statusCode).end(await answer.body.text());
  }
}

export async function startFakeControl(): Promise<FakeControl> {
  const control = new FakeControl();
  await listenUrl(control.server);
  return control;
}

async function readAll(req: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

export async function listenUrl(server: NetServer): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export function closeNow(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
