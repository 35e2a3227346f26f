/**
 * The agent's one lasting connection to a store of the cell: it hears of changes of ownership and of
 * gates that moves close, reads the lease, keeps the memory of keys in step, and, where it gets it, holds
 * the lock that makes this agent the primary.
 *
 * Always true: everything is read again at short intervals, so a lost notification costs half a
 * second and no correctness; whoever loses the connection is not primary any more; a database of
 * another cell is refused before anything of it is believed.
 */
import pg from "pg";
import { CellError } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import { letPrepare } from "../../runtime/preparing.ts";
import type { Random } from "../../runtime/random.ts";
import { type DatabaseFacts, readFacts } from "../store/facts.ts";
import { expireLease } from "../store/lease.ts";
import { listOwnership, type OwnedKey, ownershipSince } from "../store/ownership.ts";
import { stepDown, tryBecomePrimary } from "../store/primary-lock.ts";
import { subscribeOwnership } from "../store/subscription.ts";
import type { AgentLog } from "./events.ts";
import { type GateOrders, gateOrderChannel } from "./gate-orders.ts";
import type { LeaseKeeper } from "./lease-keeper.ts";
import type { OwnershipCache } from "./ownership-cache.ts";
import type { StageKeeper } from "./stage-keeper.ts";
import { gateChannel, type WouldRefuse } from "./would-refuse.ts";

export type SessionOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly instance: string;
  readonly databaseUrl: string;
  readonly cache: OwnershipCache;
  readonly lease: LeaseKeeper;
  readonly stage: StageKeeper;
  /** Undefined: the agents of the cell tell each other their counts in another store. */
  readonly wouldRefuse: WouldRefuse | undefined;
  readonly gates: GateOrders;
  /** Ownership was read that says something new, or a gate may have opened. */
  readonly onOwnership: () => void;
  /** The flag that named this database. */
  readonly flag: string;
  /** False: the lock is left to other agents, and given up if it is held. */
  readonly mayLead: () => boolean;
  /** Became primary, or the database was started anew, or the lease is over: ask the control plane now. */
  readonly onNews: () => void;
};

const intervalMs = 500;
const reconnectMaxMs = 2000;
const connectMs = 3000;
const queryMs = 5000;
const lookMs = 1000;
const pageRows = 5000;

type Link = { readonly client: pg.Client; lost: boolean; primary: boolean };

export class DatabaseSession {
  readonly #options: SessionOptions;
  readonly #looks: LookQueue;
  readonly #loop: Loop;
  #link: Link | undefined;
  #facts: DatabaseFacts | undefined;
  /** What was last said of it in the log: each change once, not each attempt. */
  #said = "";
  #expiry: Timer | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#looks = createLookQueue(options.clock);
    this.#loop = startLoop({
      clock: options.clock,
      random: options.random,
      intervalMs,
      backoffMaxMs: reconnectMaxMs,
      turn: () => this.#turn(),
      onError: () => {}, // `#drop` has said it.
    });
  }

  connected(): boolean {
    return this.#link !== undefined && !this.#link.lost && this.#said === "found";
  }
  primary(): boolean {
    return this.#link?.primary === true && !this.#link.lost;
  }
  /** What was read last, also of a database that is out of reach now. */
  facts(): DatabaseFacts | undefined {
    return this.#facts;
  }
  /** Resolves after a reading that began after this call, or after `lookMs`. */
  look(): Promise<void> {
    return this.#looks.wait(() => this.#loop.wake());
  }

  /** Read again soon. */
  wake(): void {
    this.#loop.wake();
  }

  async close(): Promise<void> {
    this.#expiry?.cancel();
    await this.#loop.close();
    const was = this.#link;
    this.#link = undefined;
    await was?.client.end().catch(() => {}); // Closing is all that is wanted.
  }

  async #turn(): Promise<"idle"> {
    const round = this.#looks.begin();
    let news: boolean;
    try {
      const link = this.#link ?? (await this.#connect());
      if (link.lost) throw new Error("the connection was lost");
      news = await this.#read(link);
    } catch (error) {
      await this.#drop(error);
      throw error;
    }
    this.#noteFound();
    this.#looks.end(round);
    // Only now: who hears of it looks at this session, and must find it connected.
    if (news) this.#options.onNews();
    return "idle";
  }

  async #connect(): Promise<Link> {
    const { databaseUrl, instance, cell, cache, clock, flag, gates, wouldRefuse } = this.#options;
    const client = new pg.Client({
      connectionString: databaseUrl,
      connectionTimeoutMillis: connectMs,
      query_timeout: queryMs,
      keepAlive: true,
      application_name: `cellfleet-agent ${instance}`.slice(0, 63),
    });
    letPrepare(client);
    const link: Link = { client, lost: false, primary: false };
    const onLost = () => {
      link.lost = true;
      if (this.#link === link) this.#loop.wake();
    };
    client.on("error", onLost);
    client.on("end", onLost);
    this.#link = link;
    await client.connect();
    await subscribeOwnership(client, () => this.#loop.wake());
    client.on("notification", ({ channel, payload = "" }) => {
      if (channel === gateChannel) wouldRefuse?.hear(payload);
      if (channel === gateOrderChannel) this.#loop.wake();
    });
    if (wouldRefuse !== undefined) await client.query(`listen ${gateChannel}`);
    // Before anything else of it is believed.
    checkCell(await readFacts(client), cell, flag);
    // Before anything is served by what is read here: a move may be waiting for all who serve.
    await gates.begin(client);
    const openGates = await gates.read(client);
    const askedMonoMs = clock.monotonicMs();
    cache.replace(await readAllKeys(client));
    cache.markRead(askedMonoMs);
    openGates();
    return link;
  }

  /** Whether the control plane should hear of what was found. */
  async #read(link: Link): Promise<boolean> {
    const { clock, cache, cell, lease, flag, gates, onOwnership } = this.#options;
    // First: a move waits for it, with requests held.
    const openGates = await gates.read(link.client);
    const askedMonoMs = clock.monotonicMs();
    const facts = await readFacts(link.client);
    checkCell(facts, cell, flag);
    const restarted = this.#facts !== undefined && this.#facts.boot !== facts.boot;
    this.#facts = facts;
    lease.observe(facts, askedMonoMs, clock.monotonicMs());
    this.#options.stage.observe(facts.stage, facts.stageNumber);
    cache.put(await ownershipSince(link.client, cache.change));
    cache.markRead(askedMonoMs);
    openGates();
    onOwnership();
    await this.#tellGates(link, askedMonoMs);
    const led = await this.#lead(link);
    return (await this.#endLease(link)) || led || restarted;
  }

  /** True: it changed. */
  async #lead(link: Link): Promise<boolean> {
    const { log, instance, mayLead } = this.#options;
    const may = mayLead();
    if (may === link.primary) return false;
    if (may) {
      if (!(await tryBecomePrimary(link.client))) return false;
      link.primary = true;
      log.event("primary.gained", { instance });
      return true;
    }
    link.primary = false;
    await stepDown(link.client);
    log.event("primary.lost", { instance }, "warn");
    return true;
  }

  /** What this gate would have refused, for the agent that reports it. */
  async #tellGates(link: Link, nowMonoMs: number): Promise<void> {
    const { stage, wouldRefuse } = this.#options;
    const told = stage.now === "enforce" ? undefined : wouldRefuse?.tell(nowMonoMs);
    if (told === undefined) return;
    await link.client.query("select pg_notify($1, $2)", [gateChannel, told]);
  }

  /** Whatever the database's clock says by then, a grant that is over stays over. */
  async #endLease(link: Link): Promise<boolean> {
    const { clock, lease } = this.#options;
    lease.tick();
    this.#expiry?.cancel();
    const leftMs = lease.remainingMs();
    // Turns come often enough for a far end; close to it the moment counts.
    if (leftMs > 0 && leftMs < 2 * intervalMs) {
      const wake = () => this.#loop.wake();
      this.#expiry = clock.after(Math.ceil(leftMs), wake, { background: true });
    }
    const grant = lease.grantToEnd();
    if (grant === undefined) return false;
    await expireLease(link.client, grant);
    lease.noteEnded(grant);
    return true;
  }

  #noteFound(): void {
    if (this.#said === "found") return;
    this.#said = "found";
    const { log, cache } = this.#options;
    log.event("database.found", {
      boot: this.#facts?.boot ?? "",
      keys: cache.size,
      revision: this.#facts?.appliedRevision ?? 0,
    });
  }

  async #drop(error: unknown): Promise<void> {
    const { log, lease, instance } = this.#options;
    const was = this.#link;
    this.#link = undefined;
    lease.tick();
    if (was?.primary === true) log.event("primary.lost", { instance }, "warn");
    const fields = errorFields(error);
    const said = `lost: ${fields["error"]}`;
    if (this.#said !== said) log.event("database.lost", fields, "warn");
    this.#said = said;
    // A broken connection may not be able to say goodbye.
    await was?.client.end().catch(() => {});
  }
}

function checkCell(facts: DatabaseFacts, cell: CellId, flag: string): void {
  if (facts.cell === cell) return;
  throw new CellError(
    "CONFIG_INVALID",
    facts.cell === null
      ? "The database was never given to a cell."
      : `The database belongs to ${facts.cell}, not to ${cell}.`,
    { nextSteps: [`point ${flag} at this cell's own database`] },
  );
}

/** One snapshot of everything; changes that commit meanwhile are read by the next turn. */
async function readAllKeys(client: pg.Client): Promise<readonly OwnedKey[]> {
  const all: OwnedKey[] = [];
  await client.query("begin isolation level repeatable read read only");
  for (let after = "", more = true; more; ) {
    const page = await listOwnership(client, after, pageRows);
    all.push(...page);
    after = page.at(-1)?.key ?? after;
    more = page.length === pageRows;
  }
  await client.query("commit");
  return all;
}

type LookQueue = {
  readonly begin: () => number;
  readonly end: (round: number) => void;
  readonly wait: (wake: () => void) => Promise<void>;
};

/** Who waits for a reading that began after they asked. */
function createLookQueue(clock: Clock): LookQueue {
  let begun = 0;
  const waiting = new Set<{ readonly from: number; readonly done: () => void }>();
  return {
    begin: () => {
      begun += 1;
      return begun;
    },
    end: (round: number) => {
      for (const one of [...waiting]) if (one.from <= round) one.done();
    },
    wait: (wake) =>
      new Promise<void>((resolve) => {
        const one = {
          from: begun + 1,
          done: () => {
            waiting.delete(one);
            timer.cancel();
            resolve();
          },
        };
        const timer = clock.after(lookMs, one.done);
        waiting.add(one);
        wake();
      }),
  };
}
