/**
 * Tier gold: an answer to a write is withheld until the partner that keeps its key has it, durably, in
 * every store. What a client was told is done is then in two cells, and no failover loses it.
 *
 * What must always be true: the position that is waited for was read after the application had answered,
 * and the log is flushed up to it; without the partner's word the answer is refused as unknown, or passes
 * where the operator has said so and then counts as degraded; no wait is longer than `waitMsMax`.
 */
import type { Clock } from "../../../runtime/clock.ts";
import type { Counter } from "../../../runtime/metrics.ts";
import type { AgentLog } from "../events.ts";
import { parseLsn } from "../position.ts";
import type { AckStore } from "./commit-position.ts";
import { type Replayed, replayedIn, type SlotRow, slotsQuery } from "./gold-slots.ts";
import { SharedReading } from "./shared-reading.ts";
import type { StandbyWatch } from "./standby-watch.ts";

/** Between two looks at the slots, while answers wait. */
const lookMs = 1;

export const goldResults = ["kept", "degraded", "refused"] as const;
export type GoldResult = (typeof goldResults)[number];

export type GoldOptions = {
  readonly clock: Clock;
  readonly log: AgentLog;
  readonly stores: readonly AckStore[];
  readonly watch: Pick<StandbyWatch, "annexOf" | "onPartnerLoss">;
  readonly counter: Counter;
  readonly waitMsMax: number;
};

type Store = { readonly mark: SharedReading<bigint>; readonly slots: SharedReading<SlotRow[]> };

export class GoldGate {
  readonly #options: GoldOptions;
  readonly #stores: readonly Store[];
  /** Annexes that did not keep up: each change is said once, and answers do not wait for who is away. */
  readonly #lost = new Map<string, string>();

  constructor(options: GoldOptions) {
    this.#options = options;
    this.#stores = options.stores.map(({ pool }) => ({
      mark: new SharedReading(async () => {
        const { rows } = await pool.query<{ lsn: string }>(markQuery);
        const lsn = parseLsn(rows[0]?.lsn ?? "");
        if (lsn === undefined) throw new Error("the database gave no position");
        return lsn;
      }),
      slots: new SharedReading(async () => (await pool.query<SlotRow>(slotsQuery)).rows),
    }));
  }

  /** After the application's answer to a write for `key`. Never rejects. */
  async keep(key: string): Promise<GoldResult> {
    const { watch, counter } = this.#options;
    const annex = watch.annexOf(key);
    const reason = annex === undefined ? "no partner keeps this key" : await this.#wait(annex);
    if (annex !== undefined) this.#note(annex, reason);
    const result: GoldResult =
      reason === undefined ? "kept" : watch.onPartnerLoss === "degrade" ? "degraded" : "refused";
    counter.inc({ result });
    return result;
  }

  /** Undefined: the partner has it. */
  async #wait(annex: string): Promise<string | undefined> {
    const { clock, waitMsMax } = this.#options;
    const deadlineMs = clock.monotonicMs() + waitMsMax;
    try {
      const ends = await Promise.all(
        this.#stores.map((store) => this.#waitIn(store, annex, deadlineMs)),
      );
      return ends.find((end) => end !== undefined);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  async #waitIn(store: Store, annex: string, deadlineMs: number): Promise<string | undefined> {
    const { clock } = this.#options;
    const lsn = await this.#within(deadlineMs, store.mark.next());
    for (;;) {
      const replayed = replayedIn(await this.#within(deadlineMs, store.slots.next()), annex, lsn);
      if (replayed === "yes") return undefined;
      const isAway = replayed !== "not-yet" && this.#lost.has(annex);
      if (isAway || clock.monotonicMs() >= deadlineMs) return replayedTexts[replayed];
      await clock.sleep(lookMs);
    }
  }

  /** A database that does not answer is waited for no longer than a partner. */
  async #within<T>(deadlineMs: number, reading: Promise<T>): Promise<T> {
    const { clock } = this.#options;
    const late = Promise.withResolvers<never>();
    const leftMs = Math.max(0, deadlineMs - clock.monotonicMs());
    const timer = clock.after(leftMs, () =>
      late.reject(new Error("the database does not say how far its partners are")),
    );
    try {
      return await Promise.race([reading, late.promise]);
    } finally {
      timer.cancel();
    }
  }

  #note(annex: string, reason: string | undefined): void {
    const { log } = this.#options;
    const before = this.#lost.get(annex);
    if (reason === undefined) {
      if (this.#lost.delete(annex)) log.event("gold.partner-found", { annex });
      return;
    }
    this.#lost.set(annex, reason);
    const policy = this.#options.watch.onPartnerLoss;
    if (before === undefined) log.event("gold.partner-lost", { annex, reason, policy }, "warn");
  }
}

const replayedTexts: Readonly<Record<Exclude<Replayed, "yes">, string>> = {
  "not-yet": "the partner did not have the write in time",
  "nobody-reads": "the partner does not follow",
  "no-slot": "there is no stream to the partner",
};

/** Its commit flushes the log up to it: what others have inserted must not wait for the log's writer. */
const markQuery = "select pg_logical_emit_message(true, 'cellfleet', '')::text as lsn";
