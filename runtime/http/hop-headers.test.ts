/** What passes a hop and what ends there, as a table. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hopByHopHeaders } from "../../contract/headers.ts";
import { filterHeaders, headerValues } from "../../contract/raw-headers.ts";
import {
  bodyFraming,
  stripRequestHeaders,
  stripResponseHeaders,
  stripTrailers,
} from "./hop-headers.ts";

const passed = (raw: string[]) => {
  const result = stripRequestHeaders(raw);
  return result.kind === "stripped" ? result.headers : result.reason;
};

describe("request headers", () => {
  test.each([
    [
      "case, order and duplicates stay",
      ["X-A", "1", "x-a", "2", "B", "3"],
      ["X-A", "1", "x-a", "2", "B", "3"],
    ],
    ["Connection and its kin go", ["Connection", "close", "Keep-Alive", "5", "A", "1"], ["A", "1"]],
    ["names listed in Connection go", ["Connection", "x-a, X-B", "X-A", "1", "x-b", "2"], []],
    [
      "also over several lines",
      ["Connection", "x-a", "connection", "x-b", "X-A", "1", "X-B", "2"],
      [],
    ],
    ["Upgrade goes without Connection", ["Upgrade", "h2c", "HTTP2-Settings", "x"], []],
    ["proxy credentials go", ["Proxy-Authorization", "x", "proxy-connection", "x"], []],
    [
      "Transfer-Encoding, TE and Trailer go",
      ["Transfer-Encoding", "chunked", "TE", "gzip", "Trailer", "X"],
      [],
    ],
    [
      "Host may not be taken away",
      ["Connection", "close, Host", "Host", "a"],
      "the Connection header names host",
    ],
    [
      "nor Content-Length",
      ["Connection", "Content-Length"],
      "the Connection header names content-length",
    ],
  ])("%s", (_name, raw, wanted) => {
    expect(passed(raw)).toEqual(wanted);
  });

  test("nothing of the connection survives, all else does", () => {
    const name = fc.oneof(
      fc.constantFrom(...hopByHopHeaders, "x-one", "X-Two", "accept", "HOST"),
      fc.stringMatching(/^[A-Za-z-]{1,12}$/),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(name, fc.string())),
        fc.array(fc.constantFrom("x-one", "accept")),
        (list, named) => {
          const raw = [...list.flat(), "Connection", named.join(", ")];
          const headers = passed(raw);
          if (typeof headers === "string") return;
          const connection = headerValues(raw, "connection")
            .join(",")
            .toLowerCase()
            .split(",")
            .map((one) => one.trim());
          const stays = (one: string) =>
            !hopByHopHeaders.includes(one) && !connection.includes(one);
          expect(headers).toEqual(filterHeaders(raw, stays));
        },
      ),
    );
  });
});

describe("response headers", () => {
  test.each([
    [
      "both cookies stay",
      ["Set-Cookie", "a=1", "Set-Cookie", "b=2"],
      ["Set-Cookie", "a=1", "Set-Cookie", "b=2"],
    ],
    [
      "the length survives Connection",
      ["Connection", "content-length", "Content-Length", "2"],
      ["Content-Length", "2"],
    ],
    ["the encoding beats the length", ["Transfer-Encoding", "chunked", "Content-Length", "2"], []],
    ["Alt-Svc is the cell's own matter", ["Alt-Svc", "h3"], []],
  ])("%s", (_name, raw, wanted) => {
    expect(stripResponseHeaders(raw)).toEqual(wanted);
  });

  test("trailers cannot smuggle framing, cookies or our own headers", () => {
    const raw = [
      "X-Sum",
      "1",
      "Content-Length",
      "0",
      "Set-Cookie",
      "a",
      "x-cellfleet-confirm",
      "x",
      "X-Cell",
      "b",
    ];
    expect(stripTrailers(raw)).toEqual(["X-Sum", "1"]);
  });
});

test.each([
  [[], { kind: "none" }],
  [["Content-Length", "0"], { kind: "none" }],
  [["content-length", "5"], { kind: "length", bytes: 5 }],
  [["Transfer-Encoding", "chunked"], { kind: "chunked" }],
])("the body of %j", (raw, wanted) => {
  expect(bodyFraming(raw)).toEqual(wanted);
});
