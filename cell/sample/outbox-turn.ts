/**
 * One turn of the outbox worker: claims a few messages of the tenants that are due, sends them, settles them.
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
  confirmDue,
  type DueTenant,
  findDueTenants,
  type Message,
  settleFailed,
  settleSent,
} from "./outbox-store.ts";

export type TurnOptions = {
  readonly database: Database;
  /** Where messages go; absent, confirming the order in the database is the whole delivery. */
  readonly url: string | undefined;
  readonly onEvent: (name: "sent" | "failed" | "dead") => void;
  readonly attemptsMax: number;
  /** Begin nothing more. */
  readonly stopped: AbortSignal;
};

/** Served at once: a receiver that is slow for one tenant holds only its lane. */
const lanes = 4;
const deliveryTimeoutMs = 5000;

/** The turn resolves with whether anything was in hand; then there may be more. */
export function createTurn(options: TurnOptions): () => Promise<boolean> {
  const { database, url, stopped } = options;

  async function turn(): Promise<boolean> {
    const due = await database.transaction([], findDueTenants);
    if (due.length === 0) return false;
    if (url === undefined && (await confirm(due))) return true;
    const queue = due.values();
    let worked = false;
    async function serveLane(): Promise<void> {
      for (const one of queue) {
        if (stopped.aborted) return;
        worked = (await serve(one)) || worked;
      }
    }
    const ended = await Promise.allSettled(Array.from({ length: lanes }, serveLane));
    const broken = ended.find((lane) => lane.status === "rejected");
    if (broken !== undefined) throw broken.reason;
    return worked;
  }

  /** False: something stands in the way, and each tenant is looked at by itself. */
  async function confirm(due: readonly DueTenant[]): Promise<boolean> {
    const scopes = due.map(({ scope }) => scope);
    const tenants = due.map(({ tenant }) => tenant);
    const confirmed = await database
      .transaction(scopes, (client) => confirmDue(client, tenants))
      .catch(unlessRefused);
    for (let n = 0; n < (confirmed?.done ?? 0); n += 1) options.onEvent("sent");
    return confirmed !== undefined && confirmed.due === confirmed.done;
  }

  async function serve({ tenant, scope }: DueTenant): Promise<boolean> {
    const messages =
      (await database
        .transaction([scope], (client) => claimMessages(client, tenant))
        .catch(unlessRefused)) ?? [];
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
    if (message.attempts > options.attemptsMax) return "its worker died on every attempt";
    if (url === undefined) return undefined;
    return deliver(url, message).then(() => undefined, messageOf);
  }

  async function settle(tenant: string, scope: Scope, sent: readonly Message[]): Promise<void> {
    const left = await database
      .transaction([scope], (client) => settleSent(client, tenant, sent))
      // Not settled: the claims run out by themselves, and the messages are sent again then.
      .catch(() => undefined);
    if (left === undefined) return;
    for (let n = left.length; n < sent.length; n += 1) options.onEvent("sent");
    for (const message of left) {
      await fail(scope, message, `order ${message.orderId} does not exist`);
    }
  }

  async function fail(scope: Scope, message: Message, reason: string): Promise<void> {
    const after = decideAfterFailure(message.attempts, options.attemptsMax, Math.random());
    options.onEvent(after.state === "dead" ? "dead" : "failed");
    await database
      .transaction([scope], (client) => settleFailed(client, message, after, reason))
      .catch(() => {}); // As above.
  }

  return turn;
}

/** Refused by the guard: a key has left this cell since we looked. Its new owner sends. */
function unlessRefused(error: unknown): undefined {
  if (fromDatabaseError(error).code !== "KEY_NOT_ACTIVE") throw error;
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
