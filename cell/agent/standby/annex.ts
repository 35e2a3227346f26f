/**
 * The agent of an annex towards its origin and the control plane: makes promises and counts them, records
 * takeovers, and says what it sees of the origin.
 *
 * Always true: what is answered stands durably in every store of the annex; a promise is taken back only
 * when it is over by this process's monotonic clock, or by the number with which the origin gives it back.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { request } from "undici";
import type { AgentSyncResponse } from "../../../contract/cell-protocol.ts";
import type { CellId } from "../../../contract/ids.ts";
import { parseCellId } from "../../../contract/ids.ts";
import type {
  AnnexReport,
  OriginSeen,
  PromiseRequest,
  TakeoverOrder,
} from "../../../contract/standby-api.ts";
import { must } from "../../../runtime/assert.ts";
import type { Clock } from "../../../runtime/clock.ts";
import {
  becomeAnnex,
  endPromise,
  makePromise,
  type PromiseOutcome,
  recordTakeover,
} from "../../store/standby.ts";
import type { AnnexFacts } from "../../store/standby-facts.ts";
import type { AgentLog } from "../events.ts";
import type { Stores } from "../stores/stores.ts";
import {
  type CountedPromise,
  countFrom,
  countPromise,
  heartbeatAgeMs,
  isWorthAskingOrigin,
  noSight,
  type Sight,
  seeBeat,
  sees,
} from "./annex-state.ts";
import { isBehind, latestOf } from "./followed-beat.ts";
import type { FollowedServer } from "./followed-server.ts";
import { alivePath, type DoorAnswer } from "./promise-door.ts";

export type AnnexOptions = {
  readonly clock: Clock;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly stores: Stores;
  /** The control plane should hear of something now. */
  readonly onNews: () => void;
  /** Of a physical standby that is not taken over: its server, which has what arrives. */
  readonly followed?: Pick<FollowedServer, "latest"> | undefined;
};

type Told = NonNullable<AgentSyncResponse["annex"]>;

/** Who spoke for the former life of the origin's database is believed gone after so long a silence. */
const contestedMs = 3000;
const probeMs = 700;

export class AnnexKeeper {
  readonly #options: AnnexOptions;
  #promise: CountedPromise | undefined;
  #sight: Sight;
  #seen = "";
  #read = false;
  #told: Told | undefined;
  #heard: { readonly instance: string; readonly monoMs: number } | undefined;
  #probing = false as boolean;
  /** One after the other, or their numbers in the stores could cross. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: AnnexOptions) {
    this.#options = options;
    this.#sight = noSight(options.clock.monotonicMs());
  }

  /** Undefined: no annex, or not known yet. `fresh`: what was read of the stores for this very call. */
  report(fresh: readonly AnnexFacts[]): AnnexReport | undefined {
    const facts = this.#facts();
    const origin = parseCellId(facts?.origin ?? "");
    if (facts === undefined || origin === undefined) return undefined;
    const nowMonoMs = this.#options.clock.monotonicMs();
    const takeover = this.#takeover();
    return {
      origin,
      sees: this.#options.stores.connected() ? sees(this.#sight, nowMonoMs) : "unknown",
      heartbeatAgeMs: heartbeatAgeMs(this.#sight, nowMonoMs),
      promiseRemainingMs: Math.max(0, (this.#promise?.untilMonoMs ?? 0) - nowMonoMs),
      ...(takeover === undefined ? {} : { takeover }),
      // Of the first store, as the origin presents itself.
      ...(fresh[0] === undefined ? {} : { originSeen: this.#withFollowed(fresh[0].seen) }),
    };
  }

  origin(): string | undefined {
    return this.#facts()?.origin;
  }

  /** A lease is asked for by an annex that serves, or is about to. */
  wantsLease(keys: number): boolean {
    // Keys come to the promoted server, never to the databases that its agent waits in.
    if (this.#options.followed !== undefined) return false;
    const facts = this.#facts();
    if (facts === undefined && this.#told === undefined) return true;
    return keys > 0 || (facts?.failover != null && facts.withdrawn !== true);
  }

  /** Before anything else of the answer is obeyed. */
  async hear(told: Told | undefined): Promise<void> {
    if (told === undefined) return;
    this.#told = told;
    const { stores, log, cell } = this.#options;
    const digest = digestOf(told.token);
    const facts = this.#facts();
    if (facts?.origin !== told.origin || facts.tokenDigest !== digest) {
      const mine = await stores.inAll((pool) => becomeAnnex(pool, told.origin, digest));
      if (mine.includes(false)) throw new Error(`${cell} is the annex of another cell`);
      await stores.look();
    }
    const { takeover } = told;
    if (takeover !== undefined && !this.#isRecorded(takeover)) {
      const outcomes = await stores.inAll((pool) => recordTakeover(pool, takeover));
      const { failover, attempt, open } = takeover;
      log.event("takeover.recorded", { failover, attempt, open, outcome: outcomes.join() });
      await stores.look();
      this.review();
      this.#options.onNews();
    }
  }

  /** What the origin's agent shows; before this process has read its database, nothing is. */
  knows(token: string): boolean {
    const digest = this.#facts()?.tokenDigest ?? "";
    return digest !== "" && isSame(digestOf(token), digest);
  }

  /** An origin's agent asks, or gives back. */
  answer(asked: PromiseRequest): Promise<DoorAnswer> {
    const turn = this.#queue.then(() => this.#answer(asked));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  /** Called often, and after each reading that matters. */
  review(): void {
    const { clock, stores } = this.#options;
    const nowMonoMs = clock.monotonicMs();
    const each = this.#each();
    const [facts] = each;
    if (facts === undefined) return;
    const stored = each.map(({ promisedMs, promiseNumber: number }) => ({ promisedMs, number }));
    const before = this.#promise;
    this.#promise = countPromise(before, stored, nowMonoMs);
    const { followed } = this.#options;
    const beat = followed === undefined ? facts.beat : (followed.latest()?.beat ?? null);
    this.#sight = seeBeat(this.#sight, beat, nowMonoMs, !this.#read);
    this.#read = followed === undefined || beat !== null;
    if (this.#promise !== undefined && nowMonoMs >= this.#promise.untilMonoMs) {
      void this.#end(this.#promise).catch(() => {}); // The next review tries again.
    }
    void this.#probe(nowMonoMs);
    const seen = `${sees(this.#sight, nowMonoMs)} ${before !== undefined && this.#promise === undefined}`;
    if (seen !== this.#seen && stores.primary()) this.#options.onNews();
    this.#seen = seen;
  }

  async #answer(asked: PromiseRequest): Promise<DoorAnswer> {
    const { stores, cell, clock } = this.#options;
    const facts = this.#facts();
    if (facts === undefined || !stores.primary()) return "later";
    if (asked.annex !== cell || asked.origin !== facts.origin) {
      return { refused: "NOT_MY_ORIGIN", text: `this is ${cell}, of ${facts.origin}` };
    }
    if (asked.forMs === 0) return this.#giveBack(asked);
    if (isBehind(asked, this.#options.followed?.latest())) return travelled(asked);
    const heard = this.#heard;
    const contested =
      heard !== undefined &&
      heard.instance === facts.presenter &&
      clock.monotonicMs() - heard.monoMs < contestedMs;
    const ends = await stores.inAll((pool, at) =>
      makePromise(pool, {
        ...{ origin: asked.origin, forMs: asked.forMs, contested },
        identity: at === 0 ? asked : undefined,
      }),
    );
    const refusal = ends.map((end) => refusalOf(end, asked)).find((one) => one !== undefined);
    if (refusal !== undefined) return refusal;
    this.#heard = { instance: asked.instance, monoMs: clock.monotonicMs() };
    const stored = ends.map(({ number }) => ({ promisedMs: asked.forMs, number }));
    this.#promise = countFrom(this.#promise, stored, clock.monotonicMs());
    return { promisedMs: asked.forMs, number: must(stored[0], "a store").number };
  }

  async #giveBack(asked: PromiseRequest): Promise<DoorAnswer> {
    const promise = this.#promise;
    const [number = 0] = promise?.numbers ?? [];
    if (promise === undefined || asked.number !== number) return { promisedMs: 0, number };
    await this.#end(promise);
    return { promisedMs: 0, number };
  }

  async #end(promise: CountedPromise): Promise<void> {
    const { stores, log, onNews } = this.#options;
    await stores.inAll((pool, at) => endPromise(pool, promise.numbers[at] ?? 0));
    if (this.#promise !== promise) return;
    this.#promise = undefined;
    log.event("promise.over", { origin: this.#facts()?.origin ?? "" });
    await stores.look();
    onNews();
  }

  async #probe(nowMonoMs: number): Promise<void> {
    const endpoints = this.#told?.endpoints ?? [];
    if (this.#probing || endpoints.length === 0) return;
    if (!isWorthAskingOrigin(this.#sight, nowMonoMs)) return;
    this.#probing = true;
    try {
      await Promise.any(endpoints.map(askOrigin));
      const answeredMonoMs = this.#options.clock.monotonicMs();
      this.#sight = { ...this.#sight, answeredMonoMs };
    } catch {
      // Silence is what the sight says then.
    } finally {
      this.#probing = false;
    }
  }

  /** What a physical standby has applied was seen, too. */
  #withFollowed(seen: OriginSeen): OriginSeen {
    const latest = this.#options.followed?.latest();
    return latest === undefined ? seen : latestOf(seen, latest);
  }

  #isRecorded(order: TakeoverOrder): boolean {
    return this.#each().every(
      (one) =>
        one.failover === order.failover &&
        one.attempt === order.attempt &&
        (one.open || !order.open) &&
        one.withdrawn === (order.withdrawn === true) &&
        !(order.proved === true && one.promisedMs > 0),
    );
  }

  /** As every store has recorded it. */
  #takeover(): TakeoverOrder | undefined {
    const each = this.#each();
    const [first] = each;
    if (first === undefined || first.failover === null) return undefined;
    const { failover, attempt } = first;
    if (each.some((one) => one.failover !== failover || one.attempt !== attempt)) return undefined;
    const open = each.every((one) => one.open);
    return { failover, attempt, open, ...(first.withdrawn ? { withdrawn: true } : {}) };
  }

  #facts(): AnnexFacts | undefined {
    return this.#each()[0];
  }

  /** Of every store, or of none: what one of them has not recorded is not recorded. */
  #each(): readonly AnnexFacts[] {
    const each = this.#options.stores.facts()?.each ?? [];
    const annexes = each.flatMap(({ standby }) => standby.annex ?? []);
    return annexes.length === each.length ? annexes : [];
  }
}

/** Undefined: it was promised. */
function refusalOf({ outcome }: PromiseOutcome, asked: PromiseRequest): DoorAnswer | undefined {
  switch (outcome) {
    case "promised":
      return undefined;
    case "contested":
      return "later";
    case "not_my_origin":
      return { refused: "NOT_MY_ORIGIN", text: `no annex of ${asked.origin}` };
    case "takeover":
      return { refused: "TAKEOVER", text: `a takeover of ${asked.origin} has begun` };
    case "other_database":
      return {
        refused: "OTHER_DATABASE",
        text: `another database than ${asked.systemIdentifier}, started at ${asked.boot}, holds this promise`,
      };
    case "time_travel":
      return travelled(asked);
  }
}

const travelled = ({ grant, lsn }: PromiseRequest): DoorAnswer => ({
  refused: "TIME_TRAVEL",
  text: `a later state was seen here than grant ${grant} at ${lsn}`,
});

async function askOrigin(endpoint: string): Promise<void> {
  const response = await request(new URL(alivePath, endpoint), {
    headersTimeout: probeMs,
    bodyTimeout: probeMs,
    signal: AbortSignal.timeout(probeMs),
  });
  await response.body.dump();
  if (response.statusCode !== 200)
    throw new Error(`the origin's agent answers ${response.statusCode}`);
}

const digestOf = (token: string): string => createHash("sha256").update(token).digest("hex");
/** Digests are of one length; compared in constant time all the same. */
const isSame = (a: string, b: string): boolean =>
  a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
