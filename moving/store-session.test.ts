/** What says that a store's database is out of reach, and what only that it refuses. */
import pg from "pg";
import { expect, test } from "vitest";
import { isUnreachable } from "./store-session.ts";

const ofSocket = (code: string) => Object.assign(new Error(`write ${code}`), { code });
const ofServer = (code: string) => Object.assign(new pg.DatabaseError("no", 2, "error"), { code });

test.each([
  // Five capitals, as a SQLSTATE has.
  [ofSocket("EPIPE"), true],
  [ofSocket("ECONNRESET"), true],
  [new Error("Connection terminated unexpectedly"), true],
  [ofServer("57P01"), true],
  [ofServer("08006"), true],
  [ofServer("53300"), true],
  [ofServer("57014"), false],
  [ofServer("55P03"), false],
  [ofServer("CF001"), false],
])("%s: %s", (error, expected) => {
  expect(isUnreachable(error)).toBe(expected);
});
