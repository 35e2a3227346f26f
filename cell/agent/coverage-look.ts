/**
 * Which tables stand in no class (corrections A20): looked at for the control plane every few seconds.
 *
 * Apart from the facts, because a lease waits for those: this reads the whole catalog (5 ms of 2,000
 * tables), may wait for a lock, and a database whose pack cannot answer it must still be served.
 */
import type { Clock } from "../../runtime/clock.ts";
import { errorFields } from "../../runtime/log.ts";
import type { Queryable } from "../store/queryable.ts";
import { readUnclassed, type Unclassed } from "../store/table-classes.ts";
import type { AgentLog } from "./events.ts";

/** A migration is no matter of milliseconds. */
const everyMs = 2000;
/** The call that renews the lease does not wait longer for it. */
const lookMs = 500;

type LookOptions = { readonly clock: Clock; readonly log: AgentLog; readonly pool: Queryable };

export class CoverageLook {
  readonly #options: LookOptions;
  #found: Unclassed | undefined;
  #running: Promise<void> | undefined;
  #nextMonoMs = Number.NEGATIVE_INFINITY;
  /** What was last said of it in the log: each change once. */
  #said = "";

  constructor(options: LookOptions) {
    this.#options = options;
  }

  /** Undefined: it could not be looked at, or not within `lookMs`; nothing is claimed. */
  async look(): Promise<Unclassed | undefined> {
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    if (this.#running === undefined && nowMs >= this.#nextMonoMs) {
      this.#nextMonoMs = nowMs + everyMs;
      this.#running = this.#read().finally(() => {
        this.#running = undefined;
      });
    }
    if (this.#running === undefined) return this.#found;
    const late = new AbortController();
    const inTime = await Promise.race([
      this.#running.then(() => true),
      clock.sleep(lookMs, late.signal).then(() => false),
    ]);
    late.abort();
    return inTime ? this.#found : undefined;
  }

  async #read(): Promise<void> {
    const { log, pool } = this.#options;
    try {
      this.#found = await readUnclassed(pool);
      this.#note(this.#found);
    } catch (error) {
      this.#found = undefined;
      const fields = errorFields(error);
      const said = `failed: ${fields["error"]}`;
      if (this.#said !== said) log.event("coverage.failed", fields, "warn");
      this.#said = said;
    }
  }

  #note({ count, names }: Unclassed): void {
    const said = [count, ...names].join("\n");
    if (this.#said === said) return;
    const before = this.#said;
    this.#said = said;
    // A database where all is classed has nothing to say, unless it had before.
    if (count === 0 && before === "") return;
    const tables = names.join(", ");
    this.#options.log.event("coverage.changed", { count, tables }, count > 0 ? "warn" : "info");
  }
}
