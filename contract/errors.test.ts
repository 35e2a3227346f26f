import { describe, expect, test } from "vitest";
import { CellError, errorBody, errorBodySchema, errorCodes, isErrorCode } from "./errors.ts";

describe("the wire form of an error", () => {
  test("says code, message and next steps, and no more than it was given", () => {
    const error = new CellError("TENANT_UNKNOWN", "no tenant acme", {
      nextSteps: ["cellctl tenant create acme"],
      cause: new Error("secret of the house"),
    });
    expect(errorBody(error)).toEqual({
      error: {
        code: "TENANT_UNKNOWN",
        message: "no tenant acme",
        next_steps: ["cellctl tenant create acme"],
        changed: false,
      },
    });
  });

  test("claims that nothing changed only where the table says so", () => {
    expect(errorBody(new CellError("OUTCOME_UNKNOWN", "?")).error.changed).toBeUndefined();
    expect(errorBody(new CellError("CELL_UNREACHABLE", "?")).error.changed).toBe(false);
  });

  test("carries details where there are some", () => {
    const body = errorBody(new CellError("BODY_TOO_LARGE", "?", { details: { limit: 5 } }));
    expect(body.error.details).toEqual({ limit: 5 });
  });

  test("of every code fits its own schema", () => {
    for (const code of errorCodes) {
      expect(errorBodySchema.parse(errorBody(new CellError(code, "?"))).error.code).toBe(code);
    }
  });
});

test("only codes of the table are codes", () => {
  expect(isErrorCode("TENANT_UNKNOWN")).toBe(true);
  expect(isErrorCode("toString")).toBe(false);
  expect(isErrorCode("tenant_unknown")).toBe(false);
});
