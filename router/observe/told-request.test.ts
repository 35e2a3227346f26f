/** The story of a request, told from what was kept of it: each way in which one can end. */
import { describe, expect, test } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { RequestRecord } from "./record.ts";
import { noteOf, storyOf } from "./told-request.ts";

function story(change: Partial<Omit<RequestRecord, "fields" | "count" | "ownMs">>) {
  const trace = {
    ...{ requestId: "r-1", traceId: "t", spanId: "s", parentId: undefined, flags: "00" },
    continued: false,
  };
  const record = new RequestRecord({
    ...{ startedMs: 100, trace, method: "GET", target: "/x?y=1", proto: "HTTP/1.1", peer: "p" },
  });
  Object.assign(record, change);
  return storyOf({ ...noteOf(record, 150), router: "router-1", at: "now", kind: "failed" });
}

describe("a request that", () => {
  test("was held tells how long, and what it waited for", () => {
    const refusal = new CellError("PLACEMENT_HELD", "It took too long.", {
      nextSteps: ["Send it again."],
    });
    const { trace, nextSteps } = story({
      ...{ status: 503, errorCode: "PLACEMENT_HELD", refusal, holdMs: 40, revision: 7 },
    });
    expect(trace).toContain("it waited 40 ms because its placement was changing hands");
    expect(trace).toContain(
      "after 50 ms the router answered 503 PLACEMENT_HELD: It took too long.",
    );
    expect(trace).toContain("the client was told: Send it again.");
    // A step that names a tenant is left out where there is none to name.
    expect(nextSteps).toEqual(["cellctl op ls", "cellctl explain PLACEMENT_HELD"]);
  });

  test("a cell's gate refused tells what it said", () => {
    const { trace } = story({ status: 503, attempt: 1, cellSaid: "LEASE_MISSING", upstream: "u" });
    expect(trace.join("\n")).toContain("answered with code LEASE_MISSING");
  });

  test("was sent twice tells of both", () => {
    const { trace } = story({
      ...{ status: 200, attempt: 2, upstream: "http://b", failures: ["http://a: reset"] },
    });
    expect(trace.join("\n")).toContain("2 times, last to http://b");
    expect(trace.join("\n")).toContain("failed: http://a: reset");
  });

  test.each([
    [{ status: 0, flag: "client-gone" }, "the client got no answer (client-gone) after 50 ms"],
    [{ status: 200, flag: "body-timeout" }, "went to the client and was cut off (body-timeout)"],
    [{ status: 207, flag: "incomplete" }, "went out without the parts of some cells"],
    [{ status: 200 }, "the answer of the cell, 200, went to the client after 50 ms"],
  ])("ended as %j", (change, text) => {
    expect(story({ attempt: 1, upstream: "u", ...change }).trace.join("\n")).toContain(text);
  });

  test.each([
    ["stale", 200, "gave an older answer of the same cell to the same tenant (200) in place of"],
    ["static", 503, "gave the fixed answer of the route (503) in place of"],
  ])("a route's fallback answered tells what was given instead: %s", (flag, status, text) => {
    const refusal = new CellError("CELL_UNREACHABLE", "Nobody is there.");
    const { trace } = story({
      ...{ status, flag, refusal, errorCode: "CELL_UNREACHABLE", attempt: 1, upstream: "u" },
    });
    expect(trace).toContain(`after 50 ms the router ${text} CELL_UNREACHABLE: Nobody is there.`);
  });

  test("was one too many of its tenant leads to the limits", () => {
    const { nextSteps } = story({ status: 429, errorCode: "TENANT_LIMITED" });
    expect(nextSteps[0]).toMatch(/^cellctl routing get -o yaml/);
  });

  test("names what somebody else wrote only to a limit", () => {
    const note = story({
      method: "X".repeat(10_000),
      status: 405,
      errorCode: "METHOD_NOT_ALLOWED",
    });
    expect(JSON.stringify(note).length).toBeLessThan(2000);
  });
});
