import { expect, test } from "vitest";
import type { Sample } from "../moves/open-load.ts";
import { outageOf } from "./takeover-time.ts";

const samples = (text: string): Sample[] =>
  [...text].map((sign, index) => ({
    tenant: "acme",
    sentMs: index * 100,
    tookMs: 10,
    outcome: sign === "+" ? "ok" : sign === "?" ? "unknown" : "fail",
    reason: "",
  }));

test.each([
  ["no outage", "++++++", undefined],
  ["from the last success to the first of three", "+++--+-+++", { lastedMs: 500, refused: 3 }],
  ["an unknown outcome is no success", "++?+++", { lastedMs: 200, refused: 1 }],
  ["never served again", "++---+-+", { lastedMs: null, refused: 4 }],
])("%s: %s", (_name, text, expected) => {
  const found = outageOf("acme", samples(text), 0);
  expect(found).toEqual(expected && { tenant: "acme", ...expected });
});

test("refusals from before the harm, and of others, are not counted", () => {
  expect(outageOf("acme", samples("-+++++"), 100)).toBeUndefined();
  expect(outageOf("globex", samples("----"), 0)).toBeUndefined();
});
