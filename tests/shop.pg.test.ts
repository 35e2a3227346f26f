/**
 * The shop of examples/ by itself, as its company runs it: what it promises its customers must hold
 * before anybody speaks of cells. And it knows nothing of Cellfleet but error codes.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { until } from "./fleet.ts";
import { type PlainShop, startPlainShop, withClient } from "./plain-shop.ts";

const folder = resolve(import.meta.dirname, "..", "examples", "shop");
let shop: PlainShop;

beforeAll(async () => {
  shop = await startPlainShop({ accounts: 3, instances: 2 });
});
afterAll(() => shop?.stop());

type Answer = {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Record<string, unknown>;
};

async function ask(
  tenant: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
  instance = 0,
): Promise<Answer> {
  const response = await fetch(`${shop.web[instance]}${path}`, {
    headers: { "x-tenant-id": tenant, ...headers },
    ...(body === undefined
      ? {}
      : { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const json = (await response.json()) as Record<string, unknown>;
  return { status: response.status, headers: response.headers, json };
}

const tea = { item: "tea", quantity: 2 };

describe("the shop", () => {
  test("imports nothing of Cellfleet, and has one dependency", ({ expect }) => {
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
      (file) => file.endsWith(".js") && !file.includes("node_modules"),
    );
    expect(files.length).toBeGreaterThan(8);
    for (const file of files) {
      const text = readFileSync(join(folder, file), "utf8");
      const named = [...text.matchAll(/(?:from|import)\s*\(?\s*["']([^"']+)["']/g)].map(
        (match) => match[1] ?? "",
      );
      const strangers = named.filter(
        (name) => !/^(node:[a-z_/]+|pg|\.\.?\/(lib\/)?[a-z-]+\.js)$/.test(name),
      );
      expect({ file, strangers }).toEqual({ file, strangers: [] });
      expect(
        named.some((name) => name.startsWith("../")),
        file,
      ).toBe(false);
    }
    const { dependencies } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    expect(Object.keys(dependencies)).toEqual(["pg"]);
  });

  test("takes an order once for one Idempotency-Key, whichever instance is asked", async ({
    expect,
  }) => {
    const key = { "idempotency-key": "k-1" };
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, index) => ask("once", "/orders", tea, key, index % 2)),
    );
    const made = answers.filter(({ status }) => status === 201);
    expect(made.length).toBeGreaterThan(0);
    expect(new Set(made.map(({ json }) => json["id"])).size).toBe(1);
    const other = await ask("once", "/orders", { item: "coffee", quantity: 1 }, key);
    expect(other.status).toBe(422);
    const { json } = await ask("once", "/orders");
    expect(json).toMatchObject({ items: [{ item: "tea", quantity: 2 }], next: null });
  });

  test("pages, and never shows an order to another account", async ({ expect }) => {
    const ids: unknown[] = [];
    for (let n = 1; n <= 3; n += 1) {
      ids.unshift((await ask("pages", "/orders", { item: `n${n}`, quantity: n })).json["id"]);
    }
    const seen: unknown[] = [];
    for (let path: unknown = "/orders?limit=2"; typeof path === "string"; ) {
      const { json } = await ask("pages", path);
      seen.push(...(json["items"] as Array<{ id: number }>).map(({ id }) => id));
      path = json["next"];
    }
    expect(seen).toEqual(ids);
    expect((await ask("pages", `/orders/${ids[0]}`)).status).toBe(200);
    expect((await ask("other", `/orders/${ids[0]}`)).status).toBe(404);
  });

  test.for([
    ["not json", 400],
    [{ item: "tea" }, 400],
    [{ item: "tea", quantity: 0 }, 400],
    [{ item: "\u0000", quantity: 1 }, 400],
    [{ item: "x".repeat(201), quantity: 1 }, 400],
    ["x".repeat(10_000_000), 413],
  ] as const)("refuses what is no order, number %#", async ([body, status], { expect }) => {
    const answer = await ask("acme", "/orders", body);
    expect(answer.status).toBe(status);
    expect(answer.json).toMatchObject({ error: { code: expect.any(String) } });
  });

  test("confirms every order once, with its worker", async ({ expect }) => {
    for (let n = 0; n < 10; n += 1) await ask("worked", "/orders", tea);
    await until("all are confirmed", async () => {
      const { json } = await ask("worked", "/outbox");
      return (json["counts"] as { done: number }).done === 10;
    });
    expect(
      await shop.read("select distinct status, confirmed from orders where account_id = 'worked'"),
    ).toEqual([{ status: "confirmed", confirmed: 1 }]);
  });

  test("runs its cron job for every account", async ({ expect }) => {
    const ticking = () =>
      shop.read<{ id: string; n: number }>(
        "select id, count(tick)::int as n from accounts left join ticks on account_id = id group by 1",
      );
    await until("ten ticks each", async () => (await ticking()).every(({ n }) => n >= 10));
    expect((await ticking()).length).toBeGreaterThanOrEqual(3);
  });

  test.for(["CF001", "CF004", "CF006", "CF010", "40001"])(
    "answers %s of the database with 503 and Retry-After",
    async (state, { expect }) => {
      await withClient(shop.postgres.url("shop"), async (client) => {
        await client.query(`
          create function fence() returns trigger language plpgsql as
            $$ begin raise exception 'fenced' using errcode = '${state}'; end $$;
          create trigger fence before insert on orders for each row
            when (new.account_id = 'fenced') execute function fence()`);
        try {
          const answer = await ask("fenced", "/orders", tea);
          expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "1"]);
        } finally {
          await client.query("drop function fence cascade");
        }
      });
    },
  );
});
