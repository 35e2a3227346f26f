/** Which request heads are carried, as a table. */
import { describe, expect, test } from "vitest";
import { checkRequest, type RequestHead } from "./check-request.ts";

const limits = { fieldsMax: 5, targetBytesMax: 40 };
const check = (head: Partial<RequestHead>) =>
  checkRequest(
    { method: "GET", target: "/p", version: "1.1", headers: ["Host", "acme.test"], ...head },
    limits,
  );
const host = (...values: string[]) => ({ headers: values.flatMap((value) => ["Host", value]) });

describe("carried", () => {
  test.each([
    [{}, "acme.test", "/p"],
    [{ target: "/a//b/../c?x=%zz" }, "acme.test", "/a//b/../c?x=%zz"],
    [host("ACME.Test.:8080"), "acme.test", "/p"],
    [host("[::1]:80"), "[::1]", "/p"],
    [{ target: "http://acme.test/q?x" }, "acme.test", "/q?x"],
    [{ target: "HTTP://ACME.test" }, "acme.test", "/"],
    [{ target: "http://acme.test?x" }, "acme.test", "/?x"],
    [{ version: "1.0" }, "acme.test", "/p"],
    [{ version: "1.0", headers: ["Host", "a.test", "Expect", "more"] }, "a.test", "/p"],
    [{ headers: ["Host", "a.test:65535", "Expect", "100-Continue"] }, "a.test", "/p"],
    [{ method: "OPTIONS", headers: ["Host", "a.test", "Max-Forwards", "10"] }, "a.test", "/p"],
    [{ headers: ["Host", "acme.test", "Transfer-Encoding", "Chunked"] }, "acme.test", "/p"],
    [{ method: "OPTIONS", headers: ["Host", "acme.test", "Max-Forwards", "1"] }, "acme.test", "/p"],
  ])("%j", (head, hostname, path) => {
    expect(check(head)).toMatchObject({ kind: "ok", hostname, path });
  });
});

describe("refused", () => {
  test.each([
    ["no host", host(), "REQUEST_INVALID"],
    ["two hosts, also when equal", host("a.test", "a.test"), "REQUEST_INVALID"],
    ["an empty host", host(""), "REQUEST_INVALID"],
    ["user information in the host", host("a.test@b.test"), "REQUEST_INVALID"],
    ["a path in the host", host("a.test/x"), "REQUEST_INVALID"],
    ["a query in the host", host("a.test?x"), "REQUEST_INVALID"],
    ["a space in the host", host("a.test b.test"), "REQUEST_INVALID"],
    ["a port that is none", host("a.test:80a"), "REQUEST_INVALID"],
    ["another host in the target", { target: "http://b.test/p" }, "REQUEST_INVALID"],
    ["another scheme", { target: "ftp://acme.test/p" }, "REQUEST_INVALID"],
    ["an asterisk", { method: "OPTIONS", target: "*" }, "REQUEST_INVALID"],
    ["no slash", { target: "p" }, "REQUEST_INVALID"],
    ["a fragment", { target: "/p#x" }, "REQUEST_INVALID"],
    ["raw bytes above ASCII", { target: "/caf\u00e9" }, "REQUEST_INVALID"],
    ["HTTP/2.0 in a request line", { version: "2.0" }, "REQUEST_INVALID"],
    ["HTTP/0.9", { version: "0.9" }, "REQUEST_INVALID"],
    [
      "an encoding in HTTP/1.0",
      { version: "1.0", headers: ["Host", "a", "Transfer-Encoding", "chunked"] },
      "REQUEST_INVALID",
    ],
    [
      "an unknown encoding",
      { headers: ["Host", "a", "Transfer-Encoding", "gzip, chunked"] },
      "REQUEST_INVALID",
    ],
    ["an empty encoding", { headers: ["Host", "a", "Transfer-Encoding", ""] }, "REQUEST_INVALID"],
    [
      "encoding and length",
      { headers: ["Host", "a", "Transfer-Encoding", "chunked", "Content-Length", "1"] },
      "REQUEST_INVALID",
    ],
    ["CONNECT", { method: "CONNECT" }, "METHOD_NOT_ALLOWED"],
    ["a method of nobody", { method: "FOO", version: "2" }, "REQUEST_INVALID"],
    ["a method in lower case", { method: "get", version: "2" }, "REQUEST_INVALID"],
    ["TRACE", { method: "TRACE" }, "METHOD_NOT_ALLOWED"],
    [
      "no hops left",
      { method: "OPTIONS", headers: ["Host", "a", "Max-Forwards", "0"] },
      "METHOD_NOT_ALLOWED",
    ],
    [
      "too many fields",
      { headers: ["Host", "a", ..."abcde".split("").flatMap((x) => [x, x])] },
      "HEADERS_TOO_LARGE",
    ],
    ["a long target", { target: `/${"x".repeat(40)}` }, "URL_TOO_LONG"],
  ])("%s", (_name, head, code) => {
    expect(check(head)).toMatchObject({ kind: "refused", code });
  });
});
