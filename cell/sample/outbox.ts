/**
 * The outbox worker: claims, sends, settles; one message at a time per tenant, at its own pace.
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
    let worked = false;
    for (const { tenant, scope } of due) {
      if (stop.signal.aborted) return false;
      worked = (await serveTenant(tenant, scope)) || worked;
    }
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
    for (const message of messages) {
      if (stop.signal.aborted) break;
      await serveMessage(scope, message);
    }
    return messages.length > 0;
  }

  async function serveMessage(scope: Scope, message: Message): Promise<void> {
    try {
      if (message.attempts > limit) throw new Error("its worker died on every attempt");
      if (options.url !== undefined) await deliver(options.url, message);
      await options.database.transaction(scope, (client) => settleSent(client, message));
      options.onEvent("sent");
    } catch (error) {
      const after = decideAfterFailure(message.attempts, limit, Math.random());
      options.onEvent(after.state === "dead" ? "dead" : "failed");
      await options.database
        .transaction(scope, (client) => settleFailed(client, message, after, messageOf(error)))
        // The claim runs out by itself, and the message is tried again then.
        .catch(() => {});
    }
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
