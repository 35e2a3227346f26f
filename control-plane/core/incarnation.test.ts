/** One database holds a cell's lease; clones and restored copies are told apart from a restart. */
import { expect, test } from "vitest";
import {
  judgeIncarnation,
  type KnownIncarnation,
  type PresentedIncarnation,
} from "./incarnation.ts";

const known: KnownIncarnation = {
  systemIdentifier: "7000",
  timeline: 2,
  boot: "2026-11-01T10:00:00.000Z",
  bootInstance: "agent-1",
  grantSeen: 40,
};
const same: PresentedIncarnation = {
  systemIdentifier: "7000",
  timeline: 2,
  boot: "2026-11-01T10:00:00.000Z",
  grant: 40,
  instance: "agent-1",
};
const later = "2026-11-01T11:00:00.000Z";

test.each<[string, Partial<KnownIncarnation>, Partial<PresentedIncarnation>, boolean, string]>([
  ["a cell that was never granted a lease", { systemIdentifier: "" }, {}, false, "ok"],
  ["the same database", {}, {}, true, "ok"],
  ["a restart, told by the same agent", {}, { boot: later }, true, "ok"],
  ["a restart of database and agent", {}, { boot: later, instance: "agent-2" }, false, "ok"],
  ["a promoted replica that has every grant", {}, { timeline: 3, boot: later }, true, "ok"],
  [
    "a second server while the first one's agent calls",
    {},
    { boot: later, instance: "agent-2" },
    true,
    "wait",
  ],
  [
    "another server under the cell's name",
    {},
    { systemIdentifier: "7001" },
    false,
    "OTHER_DATABASE",
  ],
  ["an older timeline", {}, { timeline: 1 }, false, "TIME_TRAVEL"],
  ["a database that forgot a grant", {}, { grant: 39, boot: later }, false, "TIME_TRAVEL"],
  [
    "the first server, after a second was granted the lease",
    { boot: later },
    {},
    false,
    "TWO_INCARNATIONS",
  ],
])("%s", (_name, knownChange, change, isPreviousCalling, expected) => {
  const verdict = judgeIncarnation(
    { ...known, ...knownChange },
    { ...same, ...change },
    isPreviousCalling,
  );
  expect(verdict.kind === "suspect" ? verdict.reason : verdict.kind).toBe(expected);
});
