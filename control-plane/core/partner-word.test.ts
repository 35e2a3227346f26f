/** A database that was started anew is weighed by what its partners have seen of the one before. */
import { expect, test } from "vitest";
import {
  type PartnerWord,
  type PresentedPosition,
  weighWords,
  wordPatienceMs,
} from "./partner-word.ts";

const presented: PresentedPosition = {
  ...{ systemIdentifier: "7000", timeline: 2, boot: "2026-11-01T10:00:00.000Z" },
  ...{ grant: 40, instance: "agent-1", lsn: 0x500n },
};
const word: PartnerWord = {
  ...{ annex: "sb-1", isFresh: true, isAwaited: true, systemIdentifier: "7000", timeline: 2 },
  ...{ boot: "2026-11-01T09:00:00.000Z", grant: 40, lsn: 0x500n },
};
const verdictOf = (words: readonly Partial<PartnerWord>[], waitedMs = 0, mine = presented) => {
  const verdict = weighWords(
    mine,
    words.map((change) => ({ ...word, ...change })),
    waitedMs,
  );
  return verdict.kind === "suspect" ? verdict.reason : verdict.kind;
};
const vouched = { boot: "2026-11-01T10:00:00.000000+00:00", isFresh: false };
const silent = { isFresh: false };

test.each<[string, readonly Partial<PartnerWord>[], string]>([
  ["nobody keeps a standby", [], "ok"],
  ["the same was seen", [{}], "ok"],
  ["less was seen", [{ grant: 3, lsn: 1n, timeline: 1 }], "ok"],
  ["nothing was ever seen", [{ systemIdentifier: "", boot: null, grant: 0, lsn: 0n }], "ok"],
  ["a later grant was seen", [{ grant: 41 }], "TIME_TRAVEL"],
  ["a later position was seen", [{ lsn: 0x501n }], "TIME_TRAVEL"],
  ["a later timeline was seen", [{ timeline: 3 }], "TIME_TRAVEL"],
  ["another database was followed", [{ systemIdentifier: "7001" }], "OTHER_DATABASE"],
  ["a later start was vouched for", [{ boot: "2026-11-01T11:00:00Z" }], "TWO_INCARNATIONS"],
  ["one of two has seen a later grant", [{}, { grant: 41 }], "TIME_TRAVEL"],
  ["what was told long ago is later", [{ ...silent, grant: 41 }], "TIME_TRAVEL"],
  [
    "a partner that nobody waits for had seen more",
    [{ isAwaited: false, lsn: 0x501n }],
    "TIME_TRAVEL",
  ],
  [
    "this very start was vouched for, and has gone on",
    [{ ...vouched, grant: 50, lsn: 0x900n }],
    "ok",
  ],
  ["one has not spoken yet", [{}, silent], "wait"],
  ["one has not spoken, and one had vouched", [vouched, silent], "wait"],
  ["one is out of service for good", [{}, { ...silent, isAwaited: false }], "ok"],
])("%s", (_name, words, expected) => {
  expect(verdictOf(words)).toBe(expected);
});

test("a partner that stays silent holds a cell up for a while: for longer where nobody has spoken", () => {
  const { some, none } = wordPatienceMs;
  expect(some).toBeLessThan(none);
  expect([some - 1, some].map((ms) => verdictOf([{}, silent], ms))).toEqual(["wait", "ok"]);
  expect([some, none - 1, none].map((ms) => verdictOf([silent], ms))).toEqual([
    "wait",
    "wait",
    "ok",
  ]);
  expect(verdictOf([{ ...silent, grant: 41 }], none)).toBe("TIME_TRAVEL");
});

test("an agent that does not say how far its log goes is weighed by its grants", () => {
  const old = { ...presented, lsn: null };
  expect(verdictOf([{ lsn: 0x900n }], 0, old)).toBe("ok");
  expect(verdictOf([{ grant: 41 }], 0, old)).toBe("TIME_TRAVEL");
});
