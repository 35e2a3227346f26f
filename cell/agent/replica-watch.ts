/**
 * The cell's primary and its replicas, asked several times a second how far they are.
 *
 * Always true: a position that is given to a session was read after it was asked for, and when it
 * cannot be read in time the session is sent to the primary until it writes again.
 */
import pg from "pg";
import type { CellId } from "../../contract/ids.ts";
import type { Clock } from "../../runtime/clock.ts";
import { withDeadline } from "../../runtime/lifecycle.ts";
import { errorFields } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import { type DatabaseFacts, readFacts } from "../store/facts.ts";
import type { AgentLog } from "./events.ts";
import { lsnMax, parseLsn } from "./position.ts";
import { judgeReplica, PrimaryLog, type ReplicaVerdict } from "./replica-lag.ts";

export type ReplicaWatchOptions = {
  readonly cell: CellId;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly primaryUrl: string;
  /** Of the primary; undefined until its database has been seen. */
  readonly systemIdentifier: () => string | undefined;
  /** Connection strings by their references. */
  readonly replicas: ReadonlyMap<string, string>;
  readonly lagMsMax: number;
};

const pollMs = 200;
const backoffMaxMs = 1000;
const connectMs = 2000;
const queryMs = 1000;
/** An answer to a write waits no longer than this for its position. */
const positionMs = 1000;

type Reading = { readonly lsn: bigint; readonly heardMonoMs: number };

export class ReplicaWatch {
  readonly #options: ReplicaWatchOptions;
  readonly #primary = new PrimaryLog();
  readonly #readings = new Map<string, Reading>();
  readonly #pool: pg.Pool;
  readonly #loops: readonly Loop[];
  readonly #links: Link[] = [];
  readonly #said = new Map<string, string>();
  #reading: Promise<string> | undefined;
  #queued: Promise<string> | undefined;

  constructor(options: ReplicaWatchOptions) {
    this.#options = options;
    this.#pool = new pg.Pool({
      connectionString: options.primaryUrl,
      max: 2,
      connectionTimeoutMillis: connectMs,
      statement_timeout: queryMs,
      query_timeout: queryMs,
      application_name: "cellfleet-agent positions",
    });
    this.#pool.on("error", () => {}); // The next reading says what is wrong.
    this.#loops = [
      this.#poll("primary", () => this.#readPrimary()),
      ...[...options.replicas].map(([name, url]) => {
        const link = new Link(url);
        this.#links.push(link);
        return this.#poll(name, () => this.#readReplica(name, link));
      }),
    ];
  }

  /** `name`: the reference of the replica's database. */
  judge(name: string, sessionLsn: bigint): ReplicaVerdict {
    return judgeReplica({
      primary: this.#primary,
      replayed: this.#readings.get(name),
      sessionLsn,
      nowMonoMs: this.#options.clock.monotonicMs(),
      lagMsMax: this.#options.lagMsMax,
    });
  }

  /** Where the primary's log stands now or a little later, as text. Never rejects. */
  position(): Promise<string> {
    // A session that does not know how far it has written reads from the primary.
    const reading = this.#nextReading();
    return withDeadline(this.#options.clock, positionMs, () => reading).catch(() => lsnMax);
  }

  async close(): Promise<void> {
    await Promise.all(this.#loops.map((loop) => loop.close()));
    await Promise.all(this.#links.map((link) => link.close()));
    await this.#pool.end();
  }

  /** One that begins after this call; a hundred writes at once share it. */
  #nextReading(): Promise<string> {
    if (this.#reading === undefined) {
      const reading = this.#readInsertPosition().finally(() => {
        if (this.#reading === reading) this.#reading = undefined;
      });
      this.#reading = reading;
      return reading;
    }
    this.#queued ??= this.#reading
      .catch(() => {}) // Whoever asked for that one hears of it.
      .then(() => {
        this.#queued = undefined;
        return this.#nextReading();
      });
    return this.#queued;
  }

  async #readInsertPosition(): Promise<string> {
    const { rows } = await this.#pool.query<{ lsn: string }>(
      "select pg_current_wal_insert_lsn()::text as lsn",
    );
    return rows[0]?.lsn ?? lsnMax;
  }

  async #readPrimary(): Promise<boolean> {
    const askedMonoMs = this.#options.clock.monotonicMs();
    const { rows } = await this.#pool.query<{ lsn: string }>(
      "select pg_current_wal_lsn()::text as lsn",
    );
    const lsn = parseLsn(rows[0]?.lsn ?? "");
    if (lsn !== undefined) this.#primary.add(lsn, askedMonoMs);
    return true;
  }

  /** False: nothing can be said of it yet. */
  async #readReplica(name: string, link: Link): Promise<boolean> {
    const primaryServer = this.#options.systemIdentifier();
    if (primaryServer === undefined) return false;
    const heardMonoMs = this.#options.clock.monotonicMs();
    const { facts, standby, lsn } = await link.ask();
    if (facts.cell !== this.#options.cell) throw new Error(`it holds the data of ${facts.cell}`);
    if (facts.systemIdentifier !== primaryServer) {
      throw new Error("it is a replica of another server than this cell's");
    }
    // Promoted, it has a log of its own; its positions say nothing about this primary's.
    if (!standby || lsn === undefined) throw new Error("it does not follow a primary");
    this.#readings.set(name, { lsn, heardMonoMs });
    return true;
  }

  #poll(name: string, read: () => Promise<boolean>): Loop {
    const { clock, random } = this.#options;
    return startLoop({
      ...{ clock, random, intervalMs: pollMs, backoffMaxMs },
      turn: async () => {
        if (await read()) this.#say(name, "");
        return "idle";
      },
      onError: (error) => {
        this.#readings.delete(name);
        this.#say(name, String(errorFields(error)["error"]));
      },
    });
  }

  /** Each change once. */
  #say(replica: string, reason: string): void {
    if (this.#said.get(replica) === reason) return;
    this.#said.set(replica, reason);
    if (reason === "") this.#options.log.event("replica.found", { replica });
    else this.#options.log.event("replica.lost", { replica, reason }, "warn");
  }
}

/** One connection to a replica, opened again after each failure. */
class Link {
  readonly #url: string;
  #client: pg.Client | undefined;
  /** Whose replica it is; that does not change under a connection. */
  #facts: DatabaseFacts | undefined;

  constructor(url: string) {
    this.#url = url;
  }

  async ask(): Promise<{ facts: DatabaseFacts; standby: boolean; lsn: bigint | undefined }> {
    try {
      this.#client ??= await this.#connect();
      this.#facts ??= await readFacts(this.#client);
      const { rows } = await this.#client.query<{ standby: boolean; lsn: string | null }>(
        "select pg_is_in_recovery() as standby, pg_last_wal_replay_lsn()::text as lsn",
      );
      const standby = rows[0]?.standby === true;
      return { facts: this.#facts, standby, lsn: parseLsn(rows[0]?.lsn ?? "") };
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#facts = undefined;
    // A broken connection may not be able to say goodbye.
    await client?.end().catch(() => {});
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.#url,
      connectionTimeoutMillis: connectMs,
      query_timeout: queryMs,
      keepAlive: true,
      application_name: "cellfleet-agent replica",
    });
    client.on("error", () => {}); // The next question fails and says so.
    await client.connect();
    return client;
  }
}
