/** Statements that a connection prepares by itself: the same answers, also when tables change meanwhile. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { openClient } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { letPrepare } from "./preparing.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await server.stop();
});

test("what is asked again is prepared, in every form that a question has, and answered alike", async () => {
  const client = await openClient(await server.createDatabase("preparing"));
  letPrepare(client);
  await client.query(
    "create table one (id int, word text); insert into one values (1, 'a'), (2, 'b')",
  );
  const prepared = async () =>
    (await client.query("select statement from pg_prepared_statements")).rows.length;
  for (let n = 0; n < 5; n += 1) {
    const text = "select word from one where id = $1";
    expect((await client.query(text, [2])).rows).toEqual([{ word: "b" }]);
    expect((await client.query({ text, values: [1] })).rows).toEqual([{ word: "a" }]);
    const rows = { text, rowMode: "array" as const };
    expect((await client.query(rows, [1])).rows).toEqual([["a"]]);
    await new Promise<void>((resolve, reject) => {
      client.query(text, [2], (error, result) => {
        if (error) reject(error);
        else {
          expect(result.rows).toEqual([{ word: "b" }]);
          resolve();
        }
      });
    });
  }
  expect(await prepared()).toBe(1);
  // Lists of any length, and what has no parameters, are never prepared.
  for (let n = 1; n < 10; n += 1) {
    const places = Array.from({ length: n }, (_one, at) => `$${at + 1}`).join(", ");
    await client.query(
      `select id from one where id in (${places})`,
      Array.from({ length: n }, () => n),
    );
    await client.query("begin; select 1; commit");
  }
  expect(await prepared()).toBe(1);
  await client.end();
});

test("a statement whose columns changed fails once, and its session ends", async () => {
  const url = await server.createDatabase("outdated");
  const client = await openClient(url);
  letPrepare(client);
  await client.query("create table one (id int)");
  for (let n = 0; n < 4; n += 1) await client.query("select * from one where id = $1", [1]);
  const other = await openClient(url);
  await other.query("alter table one add column word text");
  const ended = new Promise((resolve) => client.once("end", resolve));
  await expect(client.query("select * from one where id = $1", [1])).rejects.toMatchObject({
    code: "0A000",
  });
  await ended;
  await other.end();
});
