/** What a schema found wrong, as people read it. */
import { expect, test } from "vitest";
import { z } from "zod";
import { placedIssue } from "./plain-issue.ts";

const schema = z.strictObject({
  ms: z.coerce.number().int().min(10).max(20).optional(),
  workers: z.union([z.literal("auto"), z.coerce.number().int().min(1).max(8)]).optional(),
  mode: z.enum(["on", "off"]).optional(),
  cells: z.record(z.string(), z.strictObject({ endpoints: z.array(z.string()) })).optional(),
});
const said = (input: unknown): readonly string[] =>
  (schema.safeParse(input).error?.issues ?? []).map((issue) => placedIssue(issue, input));

test.each([
  [{ ms: "2s" }, 'ms: must be a number, and not "2s"'],
  [{ ms: "12.5" }, 'ms: must be a whole number, and not "12.5"'],
  [{ ms: "1" }, 'ms: must be at least 10, and not "1"'],
  [{ ms: 21 }, "ms: must be at most 20, and not 21"],
  [{ workers: "0" }, 'workers: must be at least 1, and not "0"'],
  [{ workers: "x" }, 'workers: must be auto, or a number, and not "x"'],
  [{ mode: "maybe" }, 'mode: must be on or off, and not "maybe"'],
  [{ what: 1, else: 2 }, 'there is no "what", "else" here'],
  [{ cells: { a: {} } }, "cells.a.endpoints: is missing"],
  [{ cells: { a: { endpoints: [3] } } }, "cells.a.endpoints.0: must be a text, and not 3"],
  [{ cells: { a: 1 } }, "cells.a: must be an object, and not 1"],
  [[], "must be an object"],
])("%j: %s", (input, text) => {
  expect(said(input)).toEqual([text]);
});
