/**
 * Operators' questions that came with an answer of the control plane: each is run once here, and its
 * answer is sent until the control plane has taken it. Only the primary agent hears of them.
 */

import { z } from "zod";
import type { QueryAnswer } from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { JsonClient } from "../../runtime/http-client.ts";
import { errorFields } from "../../runtime/log.ts";
import type { AgentLog } from "./events.ts";
import { type Answer, failed, type Question, runQuestion } from "./read-query.ts";

export type QuestionsOptions = {
  readonly cell: CellId;
  readonly clock: Clock;
  readonly log: AgentLog;
  readonly client: JsonClient;
  /** Of a login that may only read; absent: every question is refused. */
  readonly databaseUrl: string | undefined;
};

/** At once; the others wait. More do not wait than the contract lets one answer hold. */
const runningMax = 2;
const waitingMax = 20;
const sendMs = 30_000;
/** The protocol repeats what is not answered, so this many are more than it ever asks at once. */
const rememberedMax = 1000;

const noReader = failed(
  "NO_READER",
  "This cell's agent was started without --query-database-url: give it a login that may only read.",
);

export class Questions {
  readonly #options: QuestionsOptions;
  readonly #running = new Map<string, Promise<void>>();
  readonly #waiting = new Map<string, Question>();
  /** Not yet taken by the control plane. */
  readonly #answers = new Map<string, Answer>();
  readonly #told = new Set<string>();
  readonly #stop = new AbortController();

  constructor(options: QuestionsOptions) {
    this.#options = options;
  }

  hear(questions: readonly Question[]): void {
    for (const question of questions) {
      const { id } = question;
      const isKnown = this.#running.has(id) || this.#told.has(id);
      if (!isKnown && this.#waiting.size < waitingMax) this.#waiting.set(id, question);
    }
    this.#next();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#waiting.clear();
    await Promise.all(this.#running.values());
  }

  #next(): void {
    for (const [id, question] of this.#waiting) {
      if (this.#stop.signal.aborted || this.#running.size >= runningMax) return;
      this.#waiting.delete(id);
      const done = this.#answer(question).finally(() => {
        this.#running.delete(id);
        this.#next();
      });
      this.#running.set(id, done);
    }
  }

  /** Never rejects. */
  async #answer(question: Question): Promise<void> {
    const { cell, clock, client, databaseUrl, log } = this.#options;
    const { id } = question;
    const { signal } = this.#stop;
    const answer =
      this.#answers.get(id) ??
      (databaseUrl === undefined
        ? noReader
        : await runQuestion(question, databaseUrl, clock, signal));
    // The next primary is asked, and may do better than an answer that was cut short.
    if (signal.aborted) return;
    this.#answers.set(id, answer);
    try {
      const body: QueryAnswer = { cell, id, answer };
      const path = "/v1/machine/agent/query-answers";
      const schema = z.unknown();
      await client.call({ method: "POST", path, body, schema, timeoutMs: sendMs, signal });
    } catch (error) {
      // Unreachable: asked again, told again. Refused: late, or taken from another agent.
      if (error instanceof CellError && error.code === "CONTROL_PLANE_UNREACHABLE") return;
      log.event("answer.refused", { id, ...errorFields(error) }, "warn");
    }
    this.#answers.delete(id);
    this.#remember(id);
  }

  #remember(id: string): void {
    this.#told.add(id);
    const [oldest] = this.#told;
    if (this.#told.size > rememberedMax && oldest !== undefined) this.#told.delete(oldest);
  }
}
