/**
 * The outbox worker: claims a few messages of one tenant, sends them, settles them, at its own pace.
 *
 * At least once with a stable id, effect once: the claim is committed before sending, so only the
 * owner of the key sends; a worker that dies between sending and settling leaves a claim that runs
 * out, and the message is sent again under the same id. What fails for one message, or for one
 * tenant, never stops the others.
 */
import type { Database, Scope } from "./database.ts";
import { fromDatabaseError, messageOf } from "./errors.ts";
import { decideAfterFailure } from "./outbox-rules.ts";
import {
  claimMessages,
  findDueTenants,
  type Message,
  settleFailed,
  settleSent,
} from "./outbox-store.ts";

export type OutboxWorker = {
  /** There is something new: look now. */
  readonly wake: () => void;
  /** Waits for the message in hand. */
  readonly close: () => Promise<void>;
};

export type OutboxOptions = {
  readonly database: Database;
  /** Where messages go; absent, confirming the order in the database is the whole delivery. */
  readonly url: string | undefined;
  readonly onEvent: (name: "sent" | "failed" | "dead") => void;
  /** Called when the database cannot be used; again only after it could. */
  readonly onTrouble: (message: string) => void;
  readonly attemptsMax: number;
};

/** Tenants served at once: a receiver that is slow for one of them holds only its lane. */
const lanes = 4;
const idleMs = 500;
const troubledMs = 2000;
const deliveryTimeoutMs = 5000;

export function startOutboxWorker(options: OutboxOptions): OutboxWorker {
  const stop = new AbortController();
  const limit = options.attemptsMax;
  let nap = Promise.withResolvers<void>();
  let troubled = false;

  /** Whether anything was in hand; then the next look comes at once. */
  async function turn(): Promise<boolean> {
    const due = await options.database.transaction(undefined, findDueTenants);
    const queue = due.values();
    let worked = false;
    async function serveLane(): Promise<void> {
      for (const { tenant, scope } of queue) {
        if (stop.signal.aborted) return;
        worked = (await serveTenant(tenant, scope)) || worked;
      }
    }
    const ended = await Promise.allSettled(Array.from({ length: lanes }, serveLane));
    const broken = ended.find((lane) => lane.status === "rejected");
    if (broken !== undefined) throw broken.reason;
    return worked;
  }

  async function serveTenant(tenant: string, scope: Scope): Promise<boolean> {
    const claim = () =>
      options.database.transaction(scope, (client) => claimMessages(client, tenant));
    const messages = await claim().catch((error: unknown) => {
      // Refused by the guard: the key has left this cell since we looked. Its new owner sends.
      if (fromDatabaseError(error).code === "KEY_NOT_ACTIVE") return [];
      throw error;
    });
    const outcomes = await Promise.all(messages.map(send));
    const sent = messages.filter((_message, at) => outcomes[at] === undefined);
    if (sent.length > 0) await settle(tenant, scope, sent);
    for (const [at, message] of messages.entries()) {
      const reason = outcomes[at];
      if (reason !== undefined) await fail(scope, message, reason);
    }
    return messages.length > 0;
  }

  /** Undefined when it was sent, else why not. */
  async function send(message: Message): Promise<string | undefined> {
    if (message.attempts > limit) return "its worker died on every attempt";
    if (options.url === undefined) return undefined;
    return deliver(options.url, message).then(() => undefined, messageOf);
  }

  async function settle(tenant: string, scope: Scope, sent: readonly Message[]): Promise<void> {
    const left = await options.database
      .transaction(scope, (client) => settleSent(client, tenant, sent))
      // Not settled: the claims run out by themselves, and the messages are sent again then.
      .catch(() => undefined);
    if (left === undefined) return;
    for (let n = left.length; n < sent.length; n += 1) options.onEvent("sent");
    for (const message of left) {
      await fail(scope, message, `order ${message.orderId} does not exist`);
    }
  }

  async function fail(scope: Scope, message: Message, reason: string): Promise<void> {
    const after = decideAfterFailure(message.attempts, limit, Math.random());
    options.onEvent(after.state === "dead" ? "dead" : "failed");
    await options.database
      .transaction(scope, (client) => settleFailed(client, message, after, reason))
      .catch(() => {}); // As above.
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      nap = Promise.withResolvers<void>();
      let waitMs = idleMs;
      try {
        if (await turn()) continue;
        troubled = false;
      } catch (error) {
        waitMs = troubledMs;
        if (!troubled) options.onTrouble(messageOf(error));
        troubled = true;
      }
      const timer = setTimeout(nap.resolve, waitMs);
      await nap.promise;
      clearTimeout(timer);
    }
  }

  const running = run();
  return {
    wake: () => nap.resolve(),
    close: async () => {
      stop.abort();
      nap.resolve();
      await running;
    },
  };
}

/** The receiver tells repeats by the outbox id, which is unique in the fleet and never changes. */
async function deliver(url: string, message: Message): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", "x-outbox-id": String(message.id) },
    body: JSON.stringify({
      outboxId: message.id,
      tenant: message.tenant,
      kind: message.kind,
      payload: message.payload,
    }),
    signal: AbortSignal.timeout(deliveryTimeoutMs),
    redirect: "error",
  });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`the receiver answered ${response.status}`);
}
