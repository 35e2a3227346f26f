/** Annexes in what people read: named by their hosts, with nothing lost for programs. */
import { describe, expect, test } from "vitest";
import { mayNameAnnexes, shownHosts, shownText } from "./shown-hosts.ts";

const names = new Map([
  ["sb-cell-01-cell-03", { origin: "cell-01", host: "cell-03" }],
  ["sb-cell-01-cell-03-2", { origin: "cell-01", host: "cell-03" }],
]);
const shown = (value: unknown) => shownHosts(value, names);

describe("text", () => {
  test("names the host, and whose standby it was", () => {
    expect(shownText("it was sb-cell-01-cell-03's (op_1), now sb-cell-01-cell-03-2.", names)).toBe(
      "it was cell-03 (standby of cell-01)'s (op_1), now cell-03 (standby of cell-01).",
    );
  });

  test("names a host once where it keeps two in a row", () => {
    const list = "streams to sb-cell-01-cell-03, sb-cell-01-cell-03-2 are cut";
    expect(shownText(list, names)).toBe("streams to cell-03 (standby of cell-01) are cut");
    const other = new Map([
      ...names,
      ["sb-cell-01-cell-02", { origin: "cell-01", host: "cell-02" }],
    ]);
    expect(shownText("sb-cell-01-cell-03, sb-cell-01-cell-02", other)).toBe(
      "cell-03 (standby of cell-01), cell-02 (standby of cell-01)",
    );
  });

  test("leaves commands, addresses and what it does not know as they are", () => {
    for (const text of [
      "why it is broken: cellctl standby get sb-cell-01-cell-03",
      "see (cellctl standby rm sb-cell-01-cell-03 --yes) for it",
      "its log is /data/logs/sb-cell-01-cell-03-agent.log",
      "sb-nobody is no standby, and a tenant may be called mysb-cell-01-cell-03",
    ]) {
      expect(shownText(text, names)).toBe(text);
    }
    expect(shownText("cellctl standby ls; sb-cell-01-cell-03 is behind", names)).toBe(
      "cellctl standby ls; cell-03 (standby of cell-01) is behind",
    );
  });
});

describe("an answer", () => {
  test("names the cell, and the annex beside it", () => {
    expect(shown({ placement: { cell: "sb-cell-01-cell-03", epoch: 2 } })).toEqual({
      placement: { cell: "cell-03", annex: "sb-cell-01-cell-03", epoch: 2 },
    });
    expect(shown({ cell: "cell-03", annex: "sb-cell-01-cell-03" })).toEqual({
      ...{ cell: "cell-03", annex: "sb-cell-01-cell-03" },
    });
  });

  test("names both ends of a move, and says in its steps what they are", () => {
    const steps = [{ step: "done", text: "nothing is left in sb-cell-01-cell-03" }];
    expect(shown({ items: [{ source: "sb-cell-01-cell-03", target: "cell-02", steps }] })).toEqual({
      items: [
        {
          ...{ source: "cell-03", sourceAnnex: { id: "sb-cell-01-cell-03", origin: "cell-01" } },
          target: "cell-02",
          steps: [{ step: "done", text: "nothing is left in cell-03 (standby of cell-01)" }],
        },
      ],
    });
  });

  test("keeps the id of a standby where the standby itself is meant", () => {
    expect(shown({ id: "sb-cell-01-cell-03", object: "sb-cell-01-cell-03" })).toEqual({
      ...{ id: "sb-cell-01-cell-03", object: "sb-cell-01-cell-03" },
      standby: { origin: "cell-01", host: "cell-03" },
    });
    const next = { next_steps: ["cellctl standby get sb-cell-01-cell-03"] };
    expect(shown(next)).toEqual(next);
  });

  test("is looked through only where it may name one", () => {
    expect(mayNameAnnexes('{"cell":"cell-01"}')).toBe(false);
    expect(mayNameAnnexes('{"cell":"sb-cell-01-cell-03"}')).toBe(true);
  });
});
