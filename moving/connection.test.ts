/** What a subscription is told, and what failures are called. */
import pg from "pg";
import { expect, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { cellIdSchema } from "../contract/ids.ts";
import { connectionText, moveErrorOf } from "./connection.ts";

const login = (url: string) => ({ cell: cellIdSchema.parse("cell-a"), store: "main", url });

test("a URL becomes keywords and values, whatever stands in its parts", () => {
  const text = connectionText(
    login(
      "postgres://mo%27ver:p%5Cw%27%20d@db.example:6432/my%20db?sslmode=verify-full&uselibpqcompat=true&options=-c%20x%3D1",
    ),
    "mv_1",
  );
  expect(text).toContain("host='db.example' port='6432' user='mo\\'ver' password='p\\\\w\\' d'");
  expect(text).toContain("dbname='my db'");
  expect(text).toContain("sslmode='verify-full'");
  expect(text).not.toContain("uselibpqcompat");
  expect(text).toContain("options='-c x=1 -crow_security=off'");
  expect(text).toContain("application_name='mv_1'");
});

test("node-postgres' own word for TLS is translated", () => {
  expect(connectionText(login("postgres://u:p@h/d?ssl=true"), "x")).toMatch(/sslmode='require'/);
  expect(connectionText(login("postgres://u:p@[::1]/d"), "x")).toMatch(/^host='::1' port='5432'/);
});

const refused = (code: string): pg.DatabaseError =>
  Object.assign(new pg.DatabaseError("no", 2, "error"), { code });

test.each([
  [Object.assign(new Error("write EPIPE"), { code: "EPIPE" }), "CELL_DATABASE_UNREACHABLE"],
  [new Error("Connection terminated unexpectedly"), "CELL_DATABASE_UNREACHABLE"],
  [refused("57P01"), "CELL_DATABASE_UNREACHABLE"],
  [refused("28P01"), "CELL_DATABASE_UNREACHABLE"],
  [refused("42501"), "DATABASE_UNFIT"],
  [refused("53400"), "DATABASE_UNFIT"],
  [refused("42703"), "SCHEMA_UNFIT"],
  [refused("23505"), "MOVE_STREAM_BROKEN"],
  [refused("55P03"), "MOVE_UNFIT"],
  [refused("XX000"), "OP_FAILED"],
])("%s is %s", (error, code) => {
  const named = moveErrorOf(login("postgres://u:secret@h/d"), error);
  expect(named).toMatchObject({
    code,
    message: expect.stringMatching(/store main of cell cell-a/),
  });
  expect(JSON.stringify(named) + String(named)).not.toContain("secret");
});

test("a refusal tells PostgreSQL's code, and a command that shows why", () => {
  expect(moveErrorOf(login("postgres://h/d"), refused("55P03"))).toMatchObject({
    details: { cell: "cell-a", store: "main", sqlState: "55P03" },
    nextSteps: [expect.stringMatching(/^psql -c "select pid, pg_blocking_pids/)],
  });
  expect(moveErrorOf(login("postgres://h/d"), refused("42501"))).toMatchObject({
    nextSteps: ["cellctl check --database-url REF --role mover"],
  });
});

test("what has a name already keeps it", () => {
  const error = new CellError("MOVE_UNFIT", "so");
  expect(moveErrorOf(login("postgres://h/d"), error)).toBe(error);
  const aborted = new DOMException("stop", "AbortError");
  expect(moveErrorOf(login("postgres://h/d"), aborted)).toBe(aborted);
});
