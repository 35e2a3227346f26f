/** `--upstream`, `--health` and `--replica`, as people write them. */
import { describe, expect, test } from "vitest";
import { parseServices } from "./service-flags.ts";

const parse = (upstream: string[], health: string[] = [], replica: string[] = []) =>
  parseServices({ upstream, health, replica });

test("URLs of one name are instances of one service; without a name it is default", () => {
  expect(
    parse(
      ["http://a:1", "api=http://b:2/base", "http://c:3"],
      ["/up", "api=/healthz?x=1"],
      ["api=http://r:4,file:/secrets/replica,with,commas"],
    ),
  ).toEqual({
    services: [
      { name: "default", health: "/up", upstreams: ["http://a:1", "http://c:3"], replicas: [] },
      {
        name: "api",
        health: "/healthz?x=1",
        upstreams: ["http://b:2/base"],
        replicas: [{ url: "http://r:4", database: "file:/secrets/replica,with,commas" }],
      },
    ],
  });
});

describe("is refused, naming the flag", () => {
  test.each([
    ["nothing at all", parse([]), "--upstream: is required"],
    ["TLS", parse(["https://a:1"]), "--upstream: must be"],
    ["a query", parse(["http://a:1/?x"]), "--upstream: must be"],
    ["no URL", parse(["api="]), "--upstream: must be"],
    ["the same twice", parse(["http://a:1", "http://a:1"]), "named twice"],
    [
      "health of nobody",
      parse(["http://a:1"], ["api=/x"]),
      "--health: no --upstream is of service api",
    ],
    ["health without a slash", parse(["http://a:1"], ["up"]), "--health: must be"],
    [
      "a replica without a database",
      parse(["http://a:1"], [], ["http://r:1"]),
      "--replica: must be",
    ],
    [
      "a replica whose secret stands there itself",
      parse(["http://a:1"], [], ["http://r:1,postgres://user:hunter2@db/x"]),
      "--replica: must be",
    ],
  ])("%s", (_what, parsed, text) => {
    const problems = "problems" in parsed ? parsed.problems.join("; ") : "";
    expect(problems).toContain(text);
    expect(problems).not.toContain("hunter2");
  });
});
