/**
 * Follows the control plane: one long-polled call at a time acknowledges the revision served and waits
 * for the next change; a snapshot is fetched at first start, on a gap, on drift, and when the journal
 * on disk has grown long. Every failure only delays: what is there is served.
 */
import { Agent, request } from "undici";
import { type RouterSyncResponse, routerSyncResponseSchema } from "../contract/cell-protocol.ts";
import { CellError } from "../contract/errors.ts";
import type { HashKey } from "../contract/half-sip-hash.ts";
import { release } from "../contract/release.ts";
import type { SignedDelta } from "../contract/routing-table.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { type Loop, startLoop } from "../runtime/loop.ts";
import type { Random } from "../runtime/random.ts";
import type { Verifier } from "../runtime/signing.ts";
import type { SyncReport, TableEvent, TableRefusalReason } from "./events.ts";
import type { TableFile } from "./file.ts";
import { readSnapshot } from "./read.ts";
import type { TableStore } from "./store.ts";

export type CollectHeard = (
  wanted: NonNullable<RouterSyncResponse["collect"]>,
  instance: string,
) => void;

export type TableSyncOptions = {
  readonly url: string;
  readonly path: string;
  readonly token: string;
  readonly id: string;
  readonly report: () => SyncReport;
  readonly settled: () => Promise<void>;
  readonly onCollect: CollectHeard;
  readonly clock: Clock;
  readonly random: Random;
  readonly onEvent: (event: TableEvent) => void;
  readonly store: TableStore;
  readonly file: TableFile;
  readonly verifier: Verifier;
  readonly hashKey: HashKey;
  /** Of the last answer, to an earlier process maybe, on this process's monotonic clock. */
  readonly heardMs: number | undefined;
};

/** Below the time after which the control plane counts a silent follower as gone. */
const waitMs = 8000;
const answerMs = 5000;
const snapshotMs = 120_000;
const idleMs = 250;
const compactEveryMs = 30_000;
const backoffMaxMs = 2000;
/** However many requests say that the table is old. */
const refreshEveryMs = 1000;
/** However much there is to report at once. */
const tellEveryMs = 500;

export class TableSync {
  readonly #options: TableSyncOptions;
  readonly #client: JsonClient;
  readonly #agent = new Agent({ connections: 1, connectTimeout: 2000, allowH2: false });
  readonly #instance: string;
  #loop: Loop | undefined;
  #wantsSnapshot: boolean;
  #connected: boolean | undefined;
  #answeredMs: number;
  #compactAfterMs = 0;
  #refreshedMs = Number.NEGATIVE_INFINITY;
  #toldMs = Number.NEGATIVE_INFINITY;
  #telling: Timer | undefined;
  /** The call that waits; aborted when it is not trusted to bring what is new. */
  #asking = new AbortController();

  constructor(options: TableSyncOptions) {
    this.#options = options;
    this.#instance = options.random.uuid();
    this.#wantsSnapshot = options.store.view() === undefined;
    this.#answeredMs = options.heardMs ?? options.clock.monotonicMs();
    this.#client = createJsonClient({
      origin: options.url,
      token: options.token,
      unreachable: "CONTROL_PLANE_UNREACHABLE",
    });
  }

  /** Since the control plane last said that nothing newer exists, to whichever process; else since start. */
  get ageMs(): number {
    return this.#options.clock.monotonicMs() - this.#answeredMs;
  }

  start(): void {
    this.#loop = startLoop({
      clock: this.#options.clock,
      random: this.#options.random,
      intervalMs: idleMs,
      backoffMaxMs,
      turn: (signal) => this.#turn(signal),
      onError: (error) => this.#onError(error),
    });
  }

  /** Somebody has seen that the table is old: a call that waits may wait on a dead connection. */
  refresh(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#loop === undefined || nowMs - this.#refreshedMs < refreshEveryMs) return;
    this.#refreshedMs = nowMs;
    this.#asking.abort();
    this.#loop.hurry();
  }

  /** Reports what there is now, soon: the call that waits took its report along when it began. */
  tell(): void {
    if (this.#loop === undefined || this.#telling !== undefined) return;
    const { clock } = this.#options;
    const sinceMs = clock.monotonicMs() - this.#toldMs;
    const call = () => {
      this.#telling = undefined;
      this.#toldMs = clock.monotonicMs();
      this.#asking.abort();
      this.#loop?.hurry();
    };
    this.#telling = clock.after(Math.max(0, tellEveryMs - sinceMs), call, { background: true });
  }

  async close(): Promise<void> {
    this.#telling?.cancel();
    await this.#loop?.close();
    await this.#client.close();
    await this.#agent.destroy();
  }

  async #turn(signal: AbortSignal): Promise<"again" | "idle"> {
    const fetched = this.#wantsSnapshot;
    if (fetched) await this.#fetchSnapshot(signal);
    else if (this.#options.file.wantsSnapshot) await this.#compact(signal);
    const startedMs = this.#options.clock.monotonicMs();
    // The call says which revision is served here.
    await this.#options.settled();
    const asking = new AbortController();
    this.#asking = asking;
    const answer = await this.#ask(AbortSignal.any([signal, asking.signal])).catch((error) => {
      if (asking.signal.aborted && !signal.aborted) return undefined;
      throw error;
    });
    // Asked again at once, and answered at once.
    if (answer === undefined) return this.#doubt();
    const { answer: change, collect = [] } = answer;
    await this.#onAnswer();
    switch (change.kind) {
      case "unchanged": {
        if (collect.length > 0) this.#options.onCollect(collect, this.#instance);
        // A control plane that does not wait must not be asked in a tight circle.
        const tookMs = this.#options.clock.monotonicMs() - startedMs;
        return tookMs > idleMs ? "again" : "idle";
      }
      case "snapshot":
        this.#wantsSnapshot = true;
        // Twice in a row it would be a circle as fast as the network; the loop backs off instead.
        if (fetched)
          throw new CellError("CONTROL_PLANE_UNREACHABLE", "the snapshot was not enough");
        return "again";
      case "delta":
        return this.#applyDelta(change.delta);
    }
  }

  #doubt(): "again" {
    if (this.#connected === true) this.#connected = undefined;
    return "again";
  }

  /** For the disk's sake only, so a failure must not keep changes from coming. */
  async #compact(signal: AbortSignal): Promise<void> {
    const { clock, onEvent } = this.#options;
    if (clock.monotonicMs() < this.#compactAfterMs) return;
    this.#compactAfterMs = clock.monotonicMs() + compactEveryMs;
    try {
      await this.#fetchSnapshot(signal);
    } catch (error) {
      onEvent({ kind: "not-compacted", error });
    }
  }

  async #ask(signal: AbortSignal) {
    const { id, path, random, store, report } = this.#options;
    const table = store.view();
    const nonce = random.hex(16);
    const answer = await this.#client.call({
      method: "POST",
      path,
      body: {
        router: id,
        ...(table === undefined ? {} : { fleet: table.fleet }),
        instance: this.#instance,
        revision: table?.revision ?? 0,
        epochMax: table?.epochMax ?? 0,
        checksum: table?.checksum ?? "",
        release,
        nonce,
        // After a silence the first call comes back at once, so that the acknowledgement is known to be heard.
        waitMs: this.#connected === true ? waitMs : 0,
        ...report(),
      },
      schema: routerSyncResponseSchema,
      timeoutMs: waitMs + answerMs,
      signal,
    });
    if (answer.nonce !== nonce) {
      throw new CellError("CONTROL_PLANE_UNREACHABLE", "the answer belongs to another question");
    }
    return answer;
  }

  async #applyDelta(delta: SignedDelta): Promise<"again"> {
    const { store, verifier, file, onEvent, clock } = this.#options;
    const startedMs = clock.monotonicMs();
    const from = store.view()?.revision ?? null;
    const problem = store.apply(delta, verifier);
    const table = store.view();
    if (problem !== undefined || table === undefined) {
      this.#refuse(problem ?? { reason: "gap", text: "there is no table" }, "delta");
      this.#wantsSnapshot = true;
      return "again";
    }
    const ms = clock.monotonicMs() - startedMs;
    onEvent({ kind: "applied", by: "delta", from, table, ms });
    // The next call acknowledges; what it acknowledges is on the disk, or the disk's trouble is told.
    await this.#toDisk(() => file.append(delta, table));
    void this.#toDisk(() => file.keepCopies(table));
    return "again";
  }

  async #fetchSnapshot(signal: AbortSignal): Promise<void> {
    const { url, token, verifier, hashKey, store, file, onEvent, clock } = this.#options;
    const startedMs = clock.monotonicMs();
    const response = await request(`${url}/v1/machine/routing-table`, {
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${token}`, accept: "application/x-ndjson" },
      headersTimeout: snapshotMs,
      bodyTimeout: answerMs * 2,
      signal: AbortSignal.any([signal, AbortSignal.timeout(snapshotMs)]),
    });
    if (response.statusCode !== 200) {
      await response.body.dump();
      throw new CellError(
        "CONTROL_PLANE_UNREACHABLE",
        `the routing table was answered with ${response.statusCode}`,
      );
    }
    const copy = await this.#openCopy();
    const table = await readSnapshot(copied(response.body, copy), verifier, hashKey).catch(
      async (error: unknown) => {
        await copy?.discard();
        throw error;
      },
    );
    if ("kind" in table) {
      await copy?.discard();
      this.#refuse(table, "snapshot");
      throw new CellError("CONTROL_PLANE_UNREACHABLE", `the snapshot was refused: ${table.text}`);
    }
    const from = store.view()?.revision ?? null;
    const problem = store.replace(table, file.fleet);
    if (problem !== undefined) {
      await copy?.discard();
      this.#refuse(problem, "snapshot");
      throw new CellError("CONTROL_PLANE_UNREACHABLE", `the snapshot was refused: ${problem.text}`);
    }
    this.#wantsSnapshot = false;
    const ms = clock.monotonicMs() - startedMs;
    onEvent({ kind: "applied", by: "snapshot", from, table, ms });
    const isKept = copy !== undefined && (await this.#toDisk(() => copy.commit(table)));
    if (!isKept) return file.missed();
    void this.#toDisk(() => file.keepCopies(table));
  }

  /** Undefined when the disk does not take it: then the table is served without a copy. */
  async #openCopy(): Promise<Copy | undefined> {
    let copy: Copy | undefined;
    await this.#toDisk(async () => {
      copy = await this.#options.file.beginSnapshot();
    });
    return copy && untilFull(copy);
  }

  async #toDisk(write: () => Promise<void>): Promise<boolean> {
    try {
      await write();
      return true;
    } catch (error) {
      // A full disk must not stop changes: the table in memory is newer and is served.
      this.#options.onEvent({ kind: "not-written", error });
      return false;
    }
  }

  #refuse(
    { reason, text }: { readonly reason: TableRefusalReason; readonly text: string },
    where: string,
  ): void {
    this.#options.onEvent({ kind: "refused", reason, text, where });
  }

  async #onAnswer(): Promise<void> {
    const { onEvent, clock, file, store } = this.#options;
    this.#answeredMs = clock.monotonicMs();
    const recovered = this.#connected === false;
    this.#connected = true;
    onEvent({ kind: "synced", recovered });
    await this.#toDisk(() => file.heard(store.view(), clock.nowMs()));
  }

  #onError(error: unknown): void {
    const first = this.#connected !== false;
    this.#connected = false;
    this.#options.onEvent({ kind: "sync-failed", error, first });
  }
}

type Copy = Awaited<ReturnType<TableFile["beginSnapshot"]>>;

/** A disk that is full in the middle must not keep the table from being read: it is told at the end. */
function untilFull(copy: Copy): Copy {
  let problem: unknown;
  return {
    write: async (chunk) => {
      if (problem !== undefined) return;
      await copy.write(chunk).catch((error: unknown) => {
        problem = error;
      });
    },
    commit: async (table) => {
      if (problem === undefined) return copy.commit(table);
      await copy.discard();
      throw problem;
    },
    discard: copy.discard,
  };
}

/** Each chunk goes to the copy before it is read. */
async function* copied(
  chunks: AsyncIterable<Uint8Array>,
  copy: Copy | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of chunks) {
    await copy?.write(chunk);
    yield chunk;
  }
}
