/** What `schema init` makes of a catalog: the key that is guessed, the class of each table, and what is left open. */
import { expect, test } from "vitest";
import { parseManifest } from "../../cell/store/manifest.ts";
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import { ownFindings } from "./own-findings.ts";
import { planInstall } from "./plan-install.ts";
import { proposeManifest } from "./propose.ts";
import { tenantTables } from "./tenant-tables.ts";
import { writeManifest } from "./write-manifest.ts";

type Sketch = {
  /** `name type` or `name type!` for NOT NULL; the first is the primary key. */
  readonly columns: readonly string[];
  /** `column → table.column`. */
  readonly keys?: readonly string[];
  readonly rows?: number;
  readonly writes?: number;
};

function table(name: string, { columns, keys = [], rows = 5000, writes = 0 }: Sketch): AppTable {
  const [first = ""] = columns[0]?.split(" ") ?? [];
  return {
    ...{ schema: "public", table: name, name: `public.${name}`, partitioned: false },
    ...{
      partitionOf: null,
      owner: "owner",
      rows,
      bytes: 0,
      writes,
      checks: [],
      triggers: [],
      heirs: [],
    },
    ...{ replicaIdentity: "d", rowSecurity: false, policies: [], indexes: [], primaryKey: [first] },
    columns: columns.map((text) => {
      const [column = "", type = ""] = text.split(" ");
      const plain = { generated: false, identity: false, leased: false };
      const sequence = type.startsWith("serial") ? `${name}_seq` : null;
      const stored = type
        .replace("!", "")
        .replace("serial", "bigint")
        .replace("varchar", "character varying");
      return { ...plain, name: column, type: stored, notNull: type.endsWith("!"), sequence };
    }),
    foreignKeys: keys.map((text) => {
      const [column = "", to = ""] = text.split(" → ");
      const [target = "", targetColumn = ""] = to.split(".");
      return { name: text, columns: [column], to: `public.${target}`, toColumns: [targetColumn] };
    }),
  };
}

const catalogOf = (...tables: readonly AppTable[]): AppCatalog => ({
  ...{ database: "d", user: "u", version: 180_000, views: [], tables: [...tables] },
  pack: {
    ...{ schema: false, cell: null, stage: null, version: null, digest: null, guarded: [] },
    ...{ classes: null, mover: null },
  },
});
const classes = (catalog: AppCatalog, wanted?: string) =>
  proposeManifest(catalog, wanted)?.tables.map((one) =>
    [one.name.slice(7), one.class, one.keyColumn].filter((part) => part !== undefined).join(" "),
  );

const accounts = table("accounts", { columns: ["id serial!", "name text!"] });
const orders = table("orders", {
  columns: ["id serial!", "account_id bigint!"],
  keys: ["account_id → accounts.id"],
});

test("the surest name wins over the commoner one, and says where it points to", () => {
  const both = catalogOf(
    accounts,
    orders,
    table("notes", { columns: ["id serial!", "tenant_id text!", "user_id bigint!"] }),
    table("marks", { columns: ["id serial!", "tenant_id text!", "user_id bigint!"] }),
  );
  expect(proposeManifest(both)?.keyColumn).toBe("tenant_id");
  expect(proposeManifest(catalogOf(accounts, orders))?.keyWhy).toBe(
    "account_id is a column of 1 of 2 tables; it points to public.accounts(id)",
  );
});

test("without anything that looks like a key, none is made up", () => {
  expect(
    proposeManifest(catalogOf(table("jobs", { columns: ["id uuid!", "name text!"] }))),
  ).toBeUndefined();
});

test("children through any number of foreign keys are tenants'; what points to the tenants by another name too", () => {
  const found = classes(
    catalogOf(
      accounts,
      orders,
      table("lines", {
        columns: ["id serial!", "order_id bigint!"],
        keys: ["order_id → orders.id"],
      }),
      table("texts", { columns: ["id serial!", "line_id bigint!"], keys: ["line_id → lines.id"] }),
      table("bills", { columns: ["id serial!", "payer bigint!"], keys: ["payer → accounts.id"] }),
    ),
  );
  expect(found).toEqual([
    "accounts tenant id",
    "orders tenant",
    "lines tenant",
    "texts tenant",
    "bills tenant payer",
  ]);
});

test("what a catalog cannot tell is left open: queues, people, what grows, what is empty", () => {
  const found = classes(
    catalogOf(
      accounts,
      orders,
      table("countries", { columns: ["code text!"], rows: 200 }),
      table("job_queue", { columns: ["id serial!"], rows: 3 }),
      table("users", { columns: ["id serial!"], rows: 2 }),
      table("audit", { columns: ["id serial!"], rows: 5_000_000, writes: 5_000_000 }),
      table("empty", { columns: ["id serial!"], rows: 0 }),
      table("knex_migrations", { columns: ["id serial!"], rows: 30 }),
    ),
  )?.slice(2);
  expect(found).toEqual([
    "countries reference",
    "job_queue undecided",
    "users undecided",
    "audit undecided",
    "empty undecided",
    "knex_migrations ignore",
  ]);
});

test("in a database with hardly any rows, a small table is not taken for a lookup table", () => {
  const empty = [accounts, orders].map((one) => ({ ...one, rows: 3 }));
  const found = classes(
    catalogOf(...empty, table("countries", { columns: ["code text!"], rows: 2 })),
  );
  expect(found?.at(-1)).toBe("countries undecided");
});

test("the text that is written can be read back, whatever the tables are called", () => {
  const strange = table("on", {
    columns: ["id serial!", "account_id bigint!"],
    keys: ["account_id → accounts.id"],
  });
  const evil = { ...orders, table: 'a: "b"\n#', name: 'public.a:"b"\n#' };
  const proposal = proposeManifest(catalogOf(accounts, strange, orders));
  const text = proposal === undefined ? "" : writeManifest(proposal, "default", "default");
  expect(
    parseManifest(text).tables.map(({ table: name, class: kind }) => `${name} ${kind}`),
  ).toEqual(["accounts tenant", "on tenant", "orders tenant"]);
  const hostile = proposeManifest(catalogOf(accounts, evil));
  const read = hostile === undefined ? "" : writeManifest(hostile, "x", "default");
  // A name that no manifest can hold stands in a comment, and is not taken for something else.
  expect(parseManifest(read).tables.map(({ table: name }) => name)).toEqual(["accounts"]);
  expect(read).toContain(String.raw`# "public.a:\"b\"\n#"`);
  expect(() => parseManifest("tables: {'a\"b': tenant}")).toThrow(/must be TABLE or SCHEMA\.TABLE/);
});

const manifest = parseManifest(
  "keyColumn: account_id\ntables: {accounts: {class: tenant, keyColumn: id}, orders: tenant, flags: tenant}",
);

test("an application's own column that may be null is never filled or made NOT NULL: that is advice", () => {
  const loose = table("flags", {
    columns: ["id uuid!", "account_id bigint"],
    keys: ["account_id → accounts.id"],
  });
  const wish = { cell: "cell-01", stage: "observe", replaceUnique: [], packDigest: "x" } as const;
  const plan = planInstall(catalogOf(accounts, orders, loose), manifest, wish, new Map());
  const touched = plan.steps.filter(
    ({ object, kind }) => object === "public.flags" && kind !== "protect",
  );
  expect(touched).toEqual([]);
  expect(plan.advice.map(({ object }) => object)).toEqual(["public.flags"]);
});

test("children of rows that may have no tenant are filled, and not promised to have one", () => {
  const flags = table("flags", { columns: ["id uuid!", "account_id bigint"] });
  const notes = table("notes", {
    columns: ["id uuid!", "flag_id uuid!"],
    keys: ["flag_id → flags.id"],
  });
  const both = parseManifest("keyColumn: account_id\ntables: {flags: tenant, notes: tenant}");
  const wish = { cell: "cell-01", stage: "observe", replaceUnique: [], packDigest: "x" } as const;
  const kinds = planInstall(catalogOf(flags, notes), both, wish, new Map())
    .steps.filter(({ object }) => object === "public.notes")
    .map(({ kind }) => kind);
  expect(kinds).toEqual(["add-key-column", "backfill", "protect"]);
});

test("a primary key that people choose is a risk, one that is given is none", () => {
  const chosen = table("flags", {
    columns: ["name text!", "account_id bigint!"],
    keys: ["account_id → accounts.id"],
  });
  const given = table("flags", {
    columns: ["id varchar!", "account_id bigint!"],
    keys: ["account_id → accounts.id"],
  });
  const codesOf = (flags: AppTable) => {
    const catalog = catalogOf(accounts, orders, flags);
    return ownFindings(catalog, tenantTables(catalog, manifest)).map(
      ({ object, code, severity }) => `${object} ${code} ${severity}`,
    );
  };
  expect(codesOf(chosen)).toEqual(["public.flags UNIQUE_WITHOUT_KEY risk"]);
  expect(codesOf(given)).toEqual([]);
});
