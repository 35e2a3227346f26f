/**
 * The worker's side: one thread's whole data plane, moved by messages of the main thread.
 *
 * Messages are taken in their order, each to its end before the next where it can be: a table is served
 * in the turn in which it comes, and only then acknowledged.
 */
import type { Server } from "node:net";
import type { MessagePort, Transferable } from "node:worker_threads";
import { CellError } from "../../contract/errors.ts";
import { release } from "../../contract/release.ts";
import { TableState } from "../../contract/table-state.ts";
import { must, unreachable } from "../../runtime/assert.ts";
import { systemClock, type Timer } from "../../runtime/clock.ts";
import { createLifecycle } from "../../runtime/lifecycle.ts";
import { createLog, errorFields, type Log } from "../../runtime/log.ts";
import type { RouterEvents } from "../observe/events.ts";
import { addGauges } from "../observe/gauges.ts";
import { createServing, type Doors, openDoors, type Serving } from "../serving.ts";
import { createCountsReader } from "./counts.ts";
import { createLineBatch, type LineBatch } from "./line-batch.ts";
import { type FromWorker, readToWorker, type ToWorker, type WorkerStart } from "./messages.ts";

/** What was seen of cells is told so often. */
const tellEveryMs = 500;
/** And so soon what the control plane should hear now. */
const newsMs = 50;
/** Some turns of the event loop. */
const closedMs = 20;

type Post = (message: FromWorker, moving?: readonly Server[]) => void;

export function serveAsWorker(port: MessagePort, start: WorkerStart): void {
  if (start.release !== release) {
    throw new Error(`the code on disk is release ${release}, the router is ${start.release}`);
  }
  const post: Post = (message, moving = []) =>
    port.postMessage(message, moving as unknown as readonly Transferable[]);
  const lines = createLineBatch(systemClock, (text) => post({ kind: "log", lines: text }));
  // Whatever ends this thread, its last lines are told.
  process.on("uncaughtExceptionMonitor", lines.flush);
  const { config } = start;
  const { logLevel: level } = config;
  const log = createLog<RouterEvents>({
    ...{ clock: systemClock, part: "router", level, write: lines.write },
  });
  const worker = new ServingWorker({ start, post, log, lines });
  port.on("message", (value) => worker.hear(readToWorker(value)));
  worker.open().catch(worker.fail);
}

class ServingWorker {
  readonly #post: Post;
  readonly #lines: LineBatch;
  readonly #serving: Serving;
  readonly #lifecycle: ReturnType<typeof createLifecycle>;
  readonly #tell: (isNews: boolean) => void;
  #telling: Timer | undefined;
  #doors: Doors | undefined;

  constructor({
    start,
    post,
    log,
    lines,
  }: {
    readonly start: WorkerStart;
    readonly post: Post;
    readonly log: Log<RouterEvents>;
    readonly lines: LineBatch;
  }) {
    const { config } = start;
    this.#post = post;
    this.#lines = lines;
    this.#serving = createServing({ config, log, ownsKeys: false });
    this.#lifecycle = createLifecycle({
      clock: systemClock,
      graceMs: config.drainMs + 5000,
      onTrouble: (where, error) => log.event("router.trouble", { where, ...errorFields(error) }),
    });
    const { tally, wouldRefuse, outcomes, doubt } = this.#serving;
    doubt.follow(() => post({ kind: "doubt" }));
    const read = createCountsReader(tally, wouldRefuse, outcomes);
    tally.onNews(() => this.#tellSoon());
    this.#tell = (isNews) => {
      const counts = read(isNews);
      if (counts !== undefined) post({ kind: "seen", counts });
    };
  }

  async open(): Promise<void> {
    const { endpoints, trust, served } = this.#serving;
    const table = () => served.view()?.table;
    addGauges({ ...this.#serving, table, ageMs: () => undefined, storedRevision: () => 0 });
    this.#lifecycle.onClose("endpoints", () => endpoints.close());
    this.#lifecycle.onClose("trust", () => trust.close());
    await trust.open();
    this.#tellNowAndThen();
    this.#post({ kind: "ready" });
  }

  hear(message: ToWorker): void {
    switch (message.kind) {
      case "table": {
        const { table, ...rest } = message.view;
        this.#serving.served.set({ table: TableState.fromShared(table), ...rest });
        this.#post({ kind: "serves", revision: table.head.revision });
        return;
      }
      case "delta":
        this.#follow(message.body);
        return;
      case "open":
        this.#open(message.doors).catch(this.fail);
        return;
      case "hand-over": {
        const doors = must(this.#doors, "doors to hand over").sockets;
        this.#post({ kind: "handed-over", doors }, Object.values(doors));
        return;
      }
      case "drain":
        void this.#leave();
        return;
      case "hurry":
        this.#doors?.hurry();
        return;
      case "reload":
        void this.#doors?.reloadTls();
        return;
      case "count": {
        const { question } = message;
        const metrics = this.#serving.registry.dump();
        this.#post({ kind: "counted", question, metrics });
        return;
      }
      case "find": {
        const { question, requestId } = message;
        const answer = this.#serving.remembered.find(requestId);
        this.#post({ kind: "found", question, answer });
        return;
      }
      case "acks": {
        const { question, cell } = message;
        this.#post({ kind: "acked", question, list: this.#serving.acked.list(cell) });
        return;
      }
      default:
        unreachable(message);
    }
  }

  #follow(body: (ToWorker & { readonly kind: "delta" })["body"]): void {
    const { served } = this.#serving;
    const table = served.view()?.table;
    const problem = table === undefined ? { text: "there is no table" } : table.apply(body);
    if (table === undefined || problem !== undefined) {
      this.#post({ kind: "refused", text: problem?.text ?? "" });
      return;
    }
    served.follow(table, body);
    this.#post({ kind: "serves", revision: table.revision });
  }

  async #open(sockets: (ToWorker & { readonly kind: "open" })["doors"]): Promise<void> {
    this.#doors = await openDoors(this.#serving, this.#lifecycle, sockets);
    this.#post({ kind: "opened" });
  }

  /** Settings that do not hold are told as what they are; anything else is a crash. */
  readonly fail = (error: unknown): void => {
    if (!(error instanceof CellError)) throw error;
    const { code, message, nextSteps } = error;
    this.#post({ kind: "failed", error: { code, message, nextSteps } });
  };

  async #leave(): Promise<void> {
    await this.#lifecycle.close();
    // What was cut is counted and logged when its sockets say that they are closed.
    await systemClock.sleep(closedMs);
    this.#tell(false);
    this.#lines.flush();
    const { registry, acked } = this.#serving;
    this.#post({ kind: "drained", metrics: registry.dump(), acked: acked.lists() });
  }

  /** A cell that fails is noticed by many requests at once. */
  #tellSoon(): void {
    this.#telling ??= systemClock.after(
      newsMs,
      () => {
        this.#telling = undefined;
        this.#tell(true);
      },
      { background: true },
    );
  }

  #tellNowAndThen(): void {
    this.#tell(this.#telling !== undefined);
    systemClock.after(tellEveryMs, () => this.#tellNowAndThen(), { background: true });
  }
}
