/** When the outbox tries again, and when it gives up; cursors that only this application makes. */
import { describe, expect, test } from "vitest";
import { decideAfterFailure } from "./outbox-rules.ts";
import { nextPath, parsePage } from "./validate.ts";

describe("after a failure", () => {
  test("a message is tried again, each time later, up to a minute, spread by chance", () => {
    const waits = [1, 2, 3, 4, 12].map((attempts) => decideAfterFailure(attempts, 20, 0.5));
    expect(waits).toEqual(
      [500, 1000, 2000, 4000, 60_000].map((retryInMs) => ({ state: "pending", retryInMs })),
    );
    expect(decideAfterFailure(1, 20, 0)).toEqual({ state: "pending", retryInMs: 250 });
  });

  test("a message is dead when its attempts are used up", () => {
    expect(decideAfterFailure(7, 8, 0)).toMatchObject({ state: "pending" });
    expect(decideAfterFailure(8, 8, 0)).toEqual({ state: "dead" });
    expect(decideAfterFailure(9, 8, 0)).toEqual({ state: "dead" });
  });
});

test("the next page's path brings back where the last one ended, and the limit", () => {
  const path = nextPath(9_007_199_254_740_991, "2");
  const query = new URL(path, "http://x").searchParams;
  expect(parsePage(query.get("limit") ?? undefined, query.get("cursor") ?? undefined)).toEqual({
    limit: 2,
    before: 9_007_199_254_740_991,
  });
  expect(nextPath(1, undefined)).toMatch(/^\/orders\?cursor=[\w-]+$/);
});
