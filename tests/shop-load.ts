/**
 * Customers of the shop: they order, list and look, each as their own account, and remember every answer
 * that was not what a customer may expect. A failed request is any that was not answered 2xx; a wrong
 * row is one of another account.
 */
import { Agent } from "undici";
import { ask } from "./fleet.ts";

export type ShopLoad = {
  readonly counts: () => { readonly done: number; readonly acknowledged: number };
  readonly failures: () => readonly string[];
  /** Items whose order was acknowledged, by account. */
  readonly acknowledged: () => ReadonlyMap<string, readonly string[]>;
  /** What is going on, for the text of a failure. */
  readonly say: (stage: string) => void;
  readonly add: (accounts: readonly string[]) => void;
  /** Their orders under way still end; `done` tells when. */
  readonly remove: (accounts: readonly string[]) => void;
  readonly stop: () => Promise<void>;
};

export function startShopLoad(options: {
  readonly router: string;
  readonly accounts: readonly string[];
  readonly customers: number;
  /** Of all customers together. */
  readonly requestsPerSecond: number;
}): ShopLoad {
  const agent = new Agent({ connections: 64, allowH2: false });
  let accounts = [...options.accounts];
  const failures: string[] = [];
  const acknowledged = new Map<string, string[]>();
  const intervalMs = (1000 * options.customers) / options.requestsPerSecond;
  let stage = "start";
  let stopping = false;
  let done = 0;
  let sequence = 0;

  async function turn(): Promise<void> {
    const account = accounts[sequence % accounts.length] ?? "";
    sequence += 1;
    const item = `${account}|${sequence}`;
    const { method, path, body } = wish(sequence, item);
    const headers = { "x-tenant-id": account, "idempotency-key": item };
    const during = stage;
    const fail = (text: string) => failures.push(`${during}: ${account} ${method} ${path} ${text}`);
    try {
      const answer = await ask(agent, options.router, method, path, body, headers);
      done += 1;
      if (answer.status >= 300) {
        fail(`${answer.status} ${answer.text.slice(0, 300)}`);
        return;
      }
      if (method === "POST") {
        acknowledged.set(account, [...(acknowledged.get(account) ?? []), item]);
      }
      for (const row of strangers(account, answer.json)) fail(`was shown ${row}`);
    } catch (error) {
      fail(String(error));
    }
  }

  async function customer(): Promise<void> {
    while (!stopping) {
      const startedAt = Date.now();
      await turn();
      await new Promise((next) =>
        setTimeout(next, Math.max(0, startedAt + intervalMs - Date.now())),
      );
    }
  }
  const running = Promise.all(Array.from({ length: options.customers }, customer));
  return {
    counts: () => ({
      done,
      acknowledged: [...acknowledged.values()].reduce((sum, items) => sum + items.length, 0),
    }),
    failures: () => failures,
    acknowledged: () => acknowledged,
    say: (text) => {
      stage = text;
    },
    add: (more) => {
      accounts = [...accounts, ...more];
    },
    remove: (leaving) => {
      accounts = accounts.filter((account) => !leaving.includes(account));
    },
    stop: async () => {
      stopping = true;
      await running;
      await agent.destroy();
    },
  };
}

type Wish = {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: unknown;
};

/** An order, a list, the other service: in turns. */
function wish(sequence: number, item: string): Wish {
  const kind = sequence % 3;
  if (kind === 0) return { method: "POST", path: "/orders", body: { item, quantity: 1 } };
  return { method: "GET", path: kind === 1 ? "/orders?limit=20" : "/api/products" };
}

/** Seeded items read `tea of ACCOUNT`, the customers' own `ACCOUNT|N`. */
function strangers(account: string, page: Readonly<Record<string, unknown>>): string[] {
  const items = Array.isArray(page["items"]) ? page["items"] : [];
  return items
    .flatMap((row: { readonly item?: unknown }) => (typeof row.item === "string" ? [row.item] : []))
    .filter((item) => item !== `tea of ${account}` && !item.startsWith(`${account}|`));
}
