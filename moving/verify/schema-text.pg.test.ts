/** Which changes of definitions are drift, and which are not. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { createFrozenSnapshots } from "../frozen-snapshots.ts";
import { startTwoCells, type TwoCells } from "../two-cells.fixture.ts";
import { createVerify } from "./verify.ts";

const { schemaOf } = createVerify({
  clock: systemClock,
  random: systemRandom,
  frozen: createFrozenSnapshots(),
});
let cells: TwoCells;

beforeAll(async () => {
  cells = await startTwoCells();
  const kinds = `create type size as enum ('s', 'm'); create domain cents as integer check (value >= 0);
    create table countries (code text primary key);
    alter table notes add column size size, add column price cents, add column sizes size[],
      add constraint short check (length(body) < 99), add column country text references countries (code)`;
  for (const store of [cells.a, cells.b]) {
    await store.owner(kinds);
    await store.admin.query(
      `insert into cellfleet.classed_table (schema_name, table_name, class) values ('public', 'countries', 'reference')`,
    );
  }
});

afterAll(() => cells.close());

const both = () => Promise.all([cells.a, cells.b].map((store) => schemaOf(cells.login(store))));

/** On the target; equal again when it was taken back, or the next case would tell nothing. */
async function isDrift(change: string, back: string): Promise<boolean> {
  await cells.b.owner(change);
  const [here, there] = await both();
  await cells.b.owner(back);
  const [hereAfter, thereAfter] = await both();
  expect(thereAfter).toBe(hereAfter);
  return here !== there;
}

describe("the same definitions", () => {
  it("give the same text, which names every table and type", async () => {
    const [here, there] = await both();
    expect(here).toBe(there);
    for (const line of [
      "public.orders: table tenant tenant_id of default",
      "public.countries: table reference",
      "public.orders: primary key (tenant_id, id)",
      "public.orders: column id bigint not null default sequence",
      "public.events: table tenant tenant_id of default partitioned by RANGE (day)",
      "public.lines: column total numeric generated ((price * (2)::numeric))",
      "public.lines: FOREIGN KEY (tenant_id, order_id) REFERENCES public.orders(tenant_id, id)",
      "public.notes: replica identity (id, tenant_id)",
      "public.notes: CHECK ((length(body) < 99))",
      "type public.size: s, m",
      "type public.cents: integer CHECK ((VALUE >= 0))",
    ]) {
      expect(here?.split("\n")).toContain(line);
    }
  });

  it.each([
    [
      "the order of columns",
      "alter table notes drop column country; alter table notes drop column price; alter table notes add column country text references countries (code), add column price cents",
      "select 1",
    ],
    [
      "names of constraints",
      "alter table notes rename constraint short to not_long",
      "alter table notes rename constraint not_long to short",
    ],
    ["plain indexes", "create index by_body on notes (body)", "drop index by_body"],
    ["tables of the cell alone", "create table cached (x text)", "drop table cached"],
  ])("are not told apart by %s", async (_, change, back) => {
    expect(await isDrift(change, back)).toBe(false);
  });
});

describe("drift", () => {
  it.each([
    ["a column", "alter table notes add column x text", "alter table notes drop column x"],
    [
      "a type",
      "alter table notes alter column body type varchar(98)",
      "alter table notes alter column body type text",
    ],
    [
      "what may be null",
      "alter table notes alter column body drop not null",
      "alter table notes alter column body set not null",
    ],
    [
      "a default",
      "alter table notes alter column body set default 'x'",
      "alter table notes alter column body drop default",
    ],
    [
      "a check",
      "alter table notes drop constraint short; alter table notes add constraint short check (length(body) < 98)",
      "alter table notes drop constraint short; alter table notes add constraint short check (length(body) < 99)",
    ],
    [
      "a unique index",
      "create unique index once on notes (tenant_id, body) where size is null",
      "drop index once",
    ],
    [
      "what identifies a row",
      "alter table notes replica identity full",
      "alter table notes replica identity default",
    ],
    [
      "a foreign key",
      "alter table lines drop constraint lines_tenant_id_order_id_fkey",
      "alter table lines add foreign key (tenant_id, order_id) references orders (tenant_id, id)",
    ],
    [
      "a reference table",
      "alter table countries add column name text",
      "alter table countries drop column name",
    ],
    [
      "what a domain allows",
      "alter domain cents add constraint few check (value < 1000)",
      "alter domain cents drop constraint few",
    ],
  ])("is %s", async (_, change, back) => {
    expect(await isDrift(change, back)).toBe(true);
  });

  it("is a label of an enumeration, also where only arrays of it are stored", async () => {
    await cells.b.owner("alter type size add value 'l'");
    const [here, there] = await both();
    expect(there).not.toBe(here);
    await cells.a.owner("alter type size add value 'l'");
    const [hereAfter, thereAfter] = await both();
    expect(thereAfter).toBe(hereAfter);
  });
});
