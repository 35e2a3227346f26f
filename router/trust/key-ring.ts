/**
 * The router's keys at work: which one signs by the table of now, what is announced, when one is
 * exchanged for a new one. Static mode has none: its cells know nothing of us.
 */
import type { AnnouncedKey } from "../../contract/router-key.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";
import { errorFields, type Log } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { RouterEvents } from "../observe/events.ts";
import {
  announced,
  chooseKey,
  decideKeyStep,
  makeKey,
  type OwnKey,
  openOwnKeys,
  replaceKeys,
} from "./own-keys.ts";
import type { RequestSigner } from "./request-signer.ts";

/** Cells hear of a key at about the time the router does; it is used a little later. */
const spreadMs = 5000;
/** Timers may be early by a little. */
const timerSlackMs = 100;
/** How often the keys' age is looked at. */
const lookMs = 60_000;

export type KeyRingOptions = {
  readonly stateDir: string;
  /** Exchanges the keys; false: another thread of this router does, and they are read again. */
  readonly ownsKeys: boolean;
  /** Older keys are exchanged. */
  readonly ageMsMax: number;
  readonly signer: RequestSigner;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<RouterEvents>;
};

export class KeyRing {
  readonly #options: KeyRingOptions;
  #keys: readonly OwnKey[] = [];
  #namedSinceMs = new Map<string, number>();
  #listed: TableState["lists"]["routerKeys"];
  #ready = false;
  #loop: Loop | undefined;
  #timer: Timer | undefined;

  constructor(options: KeyRingOptions) {
    this.#options = options;
  }

  /** Public keys, newest first. */
  get announced(): AnnouncedKey[] {
    return announced(this.#keys);
  }
  /** Cells can have heard of the key; from then on it stays so. */
  get ready(): boolean {
    return this.#ready;
  }

  async open(): Promise<void> {
    const { stateDir, clock, random, log } = this.#options;
    const { keys, unwritten } = await openOwnKeys(stateDir, clock.nowMs());
    if (unwritten !== undefined) log.event("key.not-written", errorFields(unwritten), "error");
    this.#keys = keys;
    this.#choose();
    this.#loop = startLoop({
      ...{ clock, random, intervalMs: lookMs, backoffMaxMs: 10 * lookMs },
      turn: async () => {
        await this.review();
        return "idle";
      },
      onError: (error) => log.event("key.not-written", errorFields(error), "error"),
    });
  }

  /** After each change of the table. */
  follow({ lists: { routerKeys } }: TableState): void {
    // A control plane that knows of no keys publishes none, and no cell asks for signatures.
    if (routerKeys === undefined) this.#ready = true;
    if (routerKeys === undefined || routerKeys === this.#listed) return;
    this.#listed = routerKeys;
    this.#name();
    // A key that is named now may be due for its exchange, or the end of one.
    this.#loop?.wake();
  }

  /** Which of ours the table names, and since when. */
  #name(): void {
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const ids = new Set((this.#listed ?? []).map(({ id }) => id));
    const before = this.#namedSinceMs;
    this.#namedSinceMs = new Map(
      this.#keys.flatMap(({ id }) => (ids.has(id) ? [[id, before.get(id) ?? nowMs] as const] : [])),
    );
    this.#choose();
    this.#timer?.cancel();
    const afterMs = spreadMs + timerSlackMs;
    this.#timer = clock.after(afterMs, () => this.#choose(), { background: true });
  }

  /** Makes or drops a key, if it is time. */
  async review(): Promise<void> {
    const { stateDir, ownsKeys, clock, ageMsMax, log } = this.#options;
    if (!ownsKeys) return this.#readAgain();
    const nowMs = clock.nowMs();
    const named = new Set(this.#namedSinceMs.keys());
    const step = decideKeyStep(this.#keys, named, nowMs, ageMsMax);
    if (step === "keep") return this.#choose();
    const newest = this.#keys.slice(0, 1);
    const keys = step === "make" ? [makeKey(nowMs), ...newest] : newest;
    // On the disk first: a key that cells know must not be gone after a restart.
    await replaceKeys(stateDir, keys);
    this.#keys = keys;
    log.event("key.changed", { step, key: keys[0]?.id ?? "", keys: keys.length });
    this.#choose();
  }

  async #readAgain(): Promise<void> {
    const { stateDir, clock } = this.#options;
    const { keys, unwritten } = await openOwnKeys(stateDir, clock.nowMs());
    if (unwritten !== undefined) return;
    this.#keys = keys;
    this.#name();
  }

  async close(): Promise<void> {
    this.#timer?.cancel();
    await this.#loop?.close();
  }

  #choose(): void {
    const nowMs = this.#options.clock.monotonicMs();
    const key = chooseKey(this.#keys, this.#namedSinceMs, nowMs, spreadMs);
    if (key === undefined) return;
    this.#options.signer.use(key);
    if (this.#namedSinceMs.has(key.id)) this.#ready = true;
  }
}
