/** What the command line of the router's bench may say. */
import { expect, test } from "vitest";
import { busyText, readPlan } from "./plan.ts";

test("nothing said measures all; what is said is done", () => {
  expect(readPlan([])).toMatchObject({ kind: "plan", rounds: 3, seconds: 1, latency: true });
  const only = ["--only", "nginx,cellfleet", "--no-bodies", "--rounds", "5"];
  expect(readPlan(only)).toMatchObject({ names: ["cellfleet", "nginx"], rounds: 5, bodies: [] });
});

test.each([
  [["--wrong"], /--wrong/],
  [["--rounds", "0"], /--rounds must be 1 or more/],
  [["--seconds", "x"], /--seconds must be 1 or more/],
  [["--only", "nginx,apache"], /no proxy apache/],
  [["stray"], /stray/],
])("%j is answered with how to write it", (args, wrong) => {
  expect(readPlan(args)).toMatchObject({ kind: "usage", wrong: expect.stringMatching(wrong) });
});

test("help names the proxies and the columns", () => {
  const help = readPlan(["--help"]);
  expect(help).toMatchObject({ kind: "usage" });
  expect(help).not.toHaveProperty("wrong");
  expect("text" in help && help.text).toMatch(/bare-undici[\s\S]*CPU us\/req/);
});

test("a machine with more to do than processors is told of", () => {
  expect(busyText(2, 2)).toBeUndefined();
  expect(busyText(2.4, 2)).toContain("load 2.4 on 2 processors");
});
