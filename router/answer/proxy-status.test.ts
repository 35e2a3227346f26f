/** What a refusal says of itself in the words of RFC 9209. */
import { expect, test } from "vitest";
import { CellError, errorCodes } from "../../contract/errors.ts";
import { proxyStatus } from "./proxy-status.ts";

const statusOf = (code: (typeof errorCodes)[number]) =>
  proxyStatus(new CellError(code, "x"), "r-1");

test.each([
  ["REQUEST_INVALID", "http_request_error"],
  ["CELL_TIMEOUT", "http_response_timeout"],
  ["LOOP_DETECTED", "proxy_loop_detected"],
  ["INTERNAL", "proxy_internal_response"],
] as const)("%s is %s", (code, type) => {
  expect(statusOf(code)).toBe(`cellfleet-r-1; error=${type}; details="${code}"`);
});

test("every code makes a well-formed item", () => {
  const item = /^[A-Za-z][\w-]*; error=[a-z_]+; details="[A-Z_]+"$/;
  for (const code of errorCodes) expect(statusOf(code)).toMatch(item);
});
