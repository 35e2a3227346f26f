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
    // Nobody waits for a receiver: all of them in one transaction.
    const groups = url === undefined && due.length > 0 ? [due] : due.map((one) => [one]);
    const queue = groups.values();
    let worked = false;
    async function serveLane(): Promise<void> {
      for (const group of queue) {
        if (stopped.aborted) return;
        worked = (await serve(group)) || worked;
      }
    }
    const ended = await Promise.allSettled(Array.from({ length: lanes }, serveLane));
    const broken = ended.find((lane) => lane.status === "rejected");
    if (broken !== undefined) throw broken.reason;
    return worked;
  }

  async function serve(group: readonly DueTenant[]): Promise<boolean> {
    const messages = await claim(group);
    const outcomes = await Promise.all(messages.map(send));
    const sent = messages.filter((_message, at) => outcomes[at] === undefined);
    if (sent.length > 0) await settle(group, sent);
    for (const [at, message] of messages.entries()) {
      const reason = outcomes[at];
      if (reason !== undefined) await fail(group, message, reason);
    }
    return messages.length > 0;
  }

  async function claim(group: readonly DueTenant[]): Promise<readonly Message[]> {
    const tenants = group.map(({ tenant }) => tenant);
    try {
      return await database.transaction(scopesOf(group), (client) =>
        claimMessages(client, tenants),
      );
    } catch (error) {
      if (fromDatabaseError(error).code !== "KEY_NOT_ACTIVE") throw error;
      // Refused by the guard: a key has left this cell since we looked. Its new owner sends; the others go on.
      if (group.length === 1) return [];
      const each = [];
      for (const one of group) each.push(...(await claim([one])));
      return each;
    }
  }

  /** Undefined when it was sent, else why not. */
  async function send(message: Message): Promise<string | undefined> {
    if (message.attempts > options.attemptsMax) return "its worker died on every attempt";
    if (url === undefined) return undefined;
    return deliver(url, message).then(() => undefined, messageOf);
  }

  async function settle(group: readonly DueTenant[], sent: readonly Message[]): Promise<void> {
    const own = group.filter(({ tenant }) => sent.some((message) => message.tenant === tenant));
    let left: readonly Message[];
    try {
      left = await database.transaction(scopesOf(own), (client) => settleSent(client, sent));
    } catch {
      // Not settled: the claims run out by themselves, and the messages are sent again then.
      if (own.length === 1) return;
      for (const one of own) {
        await settle(
          [one],
          sent.filter(({ tenant }) => tenant === one.tenant),
        );
      }
      return;
    }
    for (let n = left.length; n < sent.length; n += 1) options.onEvent("sent");
    for (const message of left) {
      await fail(own, message, `order ${message.orderId} does not exist`);
    }
  }

  async function fail(
    group: readonly DueTenant[],
    message: Message,
    reason: string,
  ): Promise<void> {
    const after = decideAfterFailure(message.attempts, options.attemptsMax, Math.random());
    options.onEvent(after.state === "dead" ? "dead" : "failed");
    const own = group.filter(({ tenant }) => tenant === message.tenant);
    await database
      .transaction(scopesOf(own), (client) => settleFailed(client, message, after, reason))
      .catch(() => {}); // As above.
  }

  return turn;
}

const scopesOf = (group: readonly DueTenant[]): Scope[] => group.map(({ scope }) => scope);

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
