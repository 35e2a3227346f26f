/** Positions and ages, on an invented clock. */
import { describe, expect, test } from "vitest";
import { parseCellId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { parseLsn, readPosition } from "./position.ts";
import { judgeReplica, PrimaryLog } from "./replica-lag.ts";

const cell = must(parseCellId("cell-01"), "cell id");

describe("a position", () => {
  test.each([
    ["0/0", 0n],
    ["0/16B3748", 0x16b3748n],
    ["16/B374D848", 0x16b374d848n],
    ["FFFFFFFF/FFFFFFFF", 0xffffffffffffffffn],
    ["", undefined],
    ["16", undefined],
    ["16/", undefined],
    ["1/2/3", undefined],
    ["123456789/0", undefined],
    ["0x1/2", undefined],
    ["-1/2", undefined],
  ])("%s", (raw, lsn) => expect(parseLsn(raw)).toBe(lsn));

  test.each([
    ["nothing", [], { kind: "none" }],
    ["a header", ["X-Cell-Position", "cell-01.0/10"], { kind: "at", lsn: 16n }],
    [
      "a cookie among others",
      ["Cookie", "x=1; cell_position=cell-01.0/10; y=2"],
      { kind: "at", lsn: 16n },
    ],
    ["a cookie of a longer name", ["Cookie", "my_cell_position=cell-01.0/10"], { kind: "none" }],
    [
      "two: the furthest counts",
      ["Cookie", "cell_position=cell-01.0/10", "x-cell-position", "cell-01.0/20"],
      { kind: "at", lsn: 32n },
    ],
    ["another cell's", ["x-cell-position", "cell-02.0/10"], { kind: "unproved" }],
    [
      "one that is good and one that is not",
      ["x-cell-position", "cell-01.0/10", "x-cell-position", "?"],
      { kind: "unproved" },
    ],
    ["an empty one", ["x-cell-position", ""], { kind: "unproved" }],
  ] as const)("is read from %s", (_what, raw, expected) => {
    expect(readPosition(raw, cell)).toEqual(expected);
  });
});

describe("a replica", () => {
  const primary = () => {
    const log = new PrimaryLog();
    log.add(100n, 1000);
    log.add(200n, 1200);
    log.add(300n, 1400);
    return log;
  };
  const judge = (
    lsn: bigint,
    more: { nowMonoMs?: number; sessionLsn?: bigint; heardMonoMs?: number } = {},
  ) =>
    judgeReplica({
      primary: primary(),
      replayed: { lsn, heardMonoMs: more.heardMonoMs ?? 1500 },
      sessionLsn: more.sessionLsn ?? 0n,
      nowMonoMs: more.nowMonoMs ?? 1500,
      lagMsMax: 400,
    });

  test.each([
    ["that has everything fits", judge(300n), "fits"],
    ["that has what was there 300 ms ago fits", judge(299n), "fits"],
    ["that has what was there 500 ms ago lags", judge(199n), "lag"],
    ["that has nothing that was ever measured lags", judge(99n), "lag"],
    [
      "that has not what the session wrote is behind it",
      judge(299n, { sessionLsn: 300n }),
      "behind-session",
    ],
    ["that has exactly what the session wrote fits", judge(300n, { sessionLsn: 300n }), "fits"],
    ["ages when the primary is not heard of", judge(300n, { nowMonoMs: 1801 }), "lag"],
    ["that is not heard of is not used", judge(300n, { heardMonoMs: -501 }), "silent"],
  ])("%s", (_what, verdict, expected) => expect(verdict).toBe(expected));

  test("of a primary that writes nothing is as fresh as the last look at the primary", () => {
    const log = primary();
    log.add(300n, 9000);
    expect(log.completeUntil(300n)).toBe(9000);
    expect(log.completeUntil(299n)).toBe(1200);
  });

  test("of a primary whose log went back proves nothing by what was known before", () => {
    const log = primary();
    log.add(50n, 2000);
    expect(log.completeUntil(300n)).toBe(2000);
    expect(log.completeUntil(49n)).toBe(Number.NEGATIVE_INFINITY);
  });
});
