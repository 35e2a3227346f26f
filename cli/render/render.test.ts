/** What is printed: widths, columns, units, and that nothing of a value reaches the terminal as a command. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { keyspaceSchema } from "../../contract/control-api.ts";
import { sampleCell, sampleNowMs, sampleTenant } from "../samples.fixture.ts";
import { failureText } from "./failure.ts";
import { createOutput, type Format } from "./output.ts";
import { createPaint } from "./paint.ts";
import { isPrintable, printable, printableJson } from "./printable.ts";
import { createProgress } from "./progress.ts";
import { createTable, describe as describeObject } from "./table.ts";
import { age, bytes, count, counted, duration, parseDuration, parseSize } from "./units.ts";
import { cellView, keyspaceView, tenantView } from "./views.ts";
import { displayWidth, fitTo, padTo } from "./width.ts";
import { toYaml } from "./yaml.ts";

const plain = (_tone: unknown, text: string): string => text;
const options = { wide: false, headers: true, nowMs: sampleNowMs, paint: plain };

async function print(format: Format, pages: readonly (readonly string[])[]): Promise<string> {
  let out = "";
  const stdout = {
    write: async (text: string) => {
      out += text;
    },
    isTerminal: false,
    columns: () => undefined,
  };
  const output = createOutput({
    stdout,
    format,
    headers: true,
    paint: plain,
    nowMs: () => sampleNowMs,
    note: async () => undefined,
  });
  const all = async function* () {
    for (const ids of pages) yield { items: ids.map((id) => sampleTenant(id)), next: null };
  };
  await output.list(all(), tenantView);
  return out;
}

describe("tables", () => {
  test("cells, narrow and wide", () => {
    const rows = [
      sampleCell("cell-01"),
      sampleCell("cell-02", {
        state: "draining",
        goal: "cordoned",
        health: "down",
        lease: { grant: 1, outstandingMs: 0 },
      }),
    ];
    expect(createTable(cellView.columns, options).page(rows)).toMatchSnapshot();
    expect(createTable(cellView.columns, { ...options, wide: true }).page(rows)).toMatchSnapshot();
  });

  test("one cell in full", () => {
    expect(
      describeObject(cellView.details?.(sampleCell("cell-01"), sampleNowMs) ?? [], plain),
    ).toMatchSnapshot();
  });

  test("a later page keeps the columns of the first", async () => {
    const text = await print("table", [["a-rather-long-tenant-id"], ["b"]]);
    const [head = "", first = "", second = ""] = text.split("\n");
    expect(first.indexOf("default")).toBe(head.indexOf("KEYSPACE"));
    expect(second.indexOf("default")).toBe(head.indexOf("KEYSPACE"));
    expect(text).not.toMatch(/[ \t]\n/);
  });

  test("wide characters keep the columns straight", () => {
    const table = createTable(
      [
        { head: "A", cell: (row: string) => row },
        { head: "B", cell: () => "x" },
      ],
      options,
    ).page(["日本", "abcd", "🚀é"]);
    expect(table).toBe("A     B\n日本  x\nabcd  x\n🚀é   x\n");
  });

  test("colour stands around the word and changes no width", () => {
    const paint = createPaint(
      { env: {} },
      { write: async () => undefined, isTerminal: true, columns: () => 80 },
      "always",
    );
    const colored = createTable(cellView.columns, { ...options, paint }).page([
      sampleCell("cell-01"),
    ]);
    const esc = String.fromCharCode(27);
    expect(colored).toContain(`${esc}[32mhealthy${esc}[39m`);
    const bare = colored.replaceAll(new RegExp(`${esc}\\[\\d+m`, "g"), "");
    expect(bare).toBe(createTable(cellView.columns, options).page([sampleCell("cell-01")]));
  });
});

describe("lists as data", () => {
  test("json is one object over all pages", async () => {
    const text = await print("json", [["a", "b"], ["c"]]);
    expect(JSON.parse(text)).toEqual({
      items: ["a", "b", "c"].map((id) => JSON.parse(JSON.stringify(sampleTenant(id)))),
      next: null,
    });
    expect(JSON.parse(await print("json", []))).toEqual({ items: [], next: null });
  });

  test("yaml says the same, name one id per line", async () => {
    expect(parse(await print("yaml", [["a"], ["b"]]))).toEqual(
      JSON.parse(await print("json", [["a", "b"]])),
    );
    expect(await print("name", [["a"], ["b"]])).toBe("a\nb\n");
  });
});

describe("terminal injection", { timeout: 60_000 }, () => {
  /** Spelled anew, not borrowed from what is tested. */
  const ranges = [
    [0x00, 0x09],
    [0x0b, 0x1f],
    [0x7f, 0x9f],
    [0x200b, 0x200f],
    [0x2028, 0x202e],
    [0x2066, 0x2069],
    [0xfeff, 0xfeff],
  ] as const;
  const isDangerous = (text: string): boolean =>
    [...text].some((char) => {
      const code = char.codePointAt(0) ?? 0;
      return ranges.some(([first, last]) => code >= first && code <= last);
    });
  const attack = "\u001b]0;owned\u0007\u009b2J\r\n\u202egpj.exe\u200b";

  test("an attack is spelled out", () => {
    expect(printable(attack)).toBe("\\x1b]0;owned\\x07\\x9b2J\\x0d\\x0a\\u202egpj.exe\\u200b");
  });

  test("no text at all reaches a terminal as a command", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(isPrintable(printable(text))).toBe(true);
        const json = printableJson(JSON.stringify({ text }, null, 2));
        expect(isDangerous(json)).toBe(false);
        expect(JSON.parse(json)).toEqual({ text: text });
        const yaml = toYaml({ text, [text]: 1 });
        expect(isDangerous(yaml)).toBe(false);
      }),
    );
  });

  test("yaml reads back what was written", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(parse(toYaml({ text }))).toEqual({ text });
      }),
    );
    expect(parse(toYaml({ [attack]: attack }))).toEqual({ [attack]: attack });
  });

  test("data for programs carries no command either", async () => {
    for (const format of ["json", "yaml", "name"] as const) {
      let out = "";
      const output = createOutput({
        stdout: {
          write: async (text) => {
            out += text;
          },
          isTerminal: false,
          columns: () => undefined,
        },
        format,
        headers: true,
        paint: plain,
        nowMs: () => sampleNowMs,
        note: async () => undefined,
      });
      const view = { id: (row: { id: string }) => row.id, columns: [] };
      await output.one({ id: attack }, view);
      await output.list(
        (async function* () {
          yield { items: [{ id: attack }, { id: attack }], next: attack };
        })(),
        view,
      );
      expect(isDangerous(out)).toBe(false);
      expect(out).toMatch(/1b/);
    }
  });

  test("a label, a reason and an error message are spelled out too", () => {
    const tenant = sampleTenant("acme", { labels: { [attack]: attack }, region: attack });
    const table = createTable(tenantView.columns, { ...options, wide: true }).page([tenant]);
    const full = describeObject(tenantView.details?.(tenant, sampleNowMs) ?? [], plain);
    const failure = failureText(
      {
        code: "INTERNAL",
        exit: 1,
        message: attack,
        changed: undefined,
        details: {},
        nextSteps: [attack],
      },
      plain,
    );
    for (const text of [table, full, failure]) {
      expect(isDangerous(text)).toBe(false);
      expect(text).toContain("\\x1b");
    }
  });
});

describe("units", () => {
  test("times", () => {
    expect(
      [0, 340, 1500, 59_000, 61_000, 3_600_000, 5_400_000, 172_800_000, 7.9e9].map(duration),
    ).toEqual(["0ms", "340ms", "1.5s", "59s", "1m1s", "1h", "1h30m", "2d", "91d"]);
    expect(age("nonsense", 0)).toBe("-");
    expect(["90s", "10m", "1h30m", "2d", "250ms", "45", "1.5h"].map(parseDuration)).toEqual([
      90_000, 600_000, 5_400_000, 172_800_000, 250, 45_000, 5_400_000,
    ]);
    expect(["", "m", "10x", "-5s", "1h x"].map(parseDuration)).toEqual(Array(5).fill(undefined));
  });

  test("counts and bytes", () => {
    expect([0, 7.25, 412, 999, 1900, 3_400_000, 2e12].map(count)).toEqual([
      "0",
      "7.3",
      "412",
      "999",
      "1.9k",
      "3.4M",
      "2T",
    ]);
    expect([0, 512, 1536, 2 ** 40].map(bytes)).toEqual(["0B", "512B", "1.5KiB", "1TiB"]);
    expect(["500MB", "2GiB", "17", "1.5kb", "x", "5 furlongs"].map(parseSize)).toEqual([
      500_000_000,
      2 ** 31,
      17,
      1500,
      undefined,
      undefined,
    ]);
  });

  test("widths", () => {
    expect(["abc", "日本", "é", "👩‍👩‍👧", "ｆ", ""].map(displayWidth)).toEqual([3, 4, 1, 2, 2, 0]);
    expect(padTo("日", 4)).toBe("日  ");
    expect(fitTo("日本語", 4)).toBe("日…");
    expect(fitTo("abcd", 4)).toBe("abcd");
  });
});

describe("colour", () => {
  const terminal = { write: async () => undefined, isTerminal: true, columns: () => 80 };
  const pipe = { ...terminal, isTerminal: false };
  const isColored = (
    env: Record<string, string>,
    sink: typeof terminal,
    mode: "auto" | "always" | "never",
  ) => createPaint({ env }, sink, mode)("bad", "x") !== "x";

  test("is for terminals, and NO_COLOR and --color are heard", () => {
    expect(isColored({}, terminal, "auto")).toBe(true);
    expect(isColored({}, pipe, "auto")).toBe(false);
    expect(isColored({ NO_COLOR: "1" }, terminal, "auto")).toBe(false);
    expect(isColored({ NO_COLOR: "" }, terminal, "auto")).toBe(true);
    expect(isColored({ TERM: "dumb" }, terminal, "auto")).toBe(false);
    expect(isColored({ FORCE_COLOR: "1" }, pipe, "auto")).toBe(true);
    expect(isColored({ NO_COLOR: "1" }, pipe, "always")).toBe(true);
    expect(isColored({}, terminal, "never")).toBe(false);
  });
});

test("one of a kind is no plural", () => {
  expect([0, 1, 2].map((value) => counted(value, "key"))).toEqual(["0 keys", "1 key", "2 keys"]);
  const parts = keyspaceView.columns.find(({ head }) => head === "PARTS");
  const range = keyspaceSchema.parse({
    ...{ id: "k", name: "k", strategy: "range", slotCount: null, ranges: [""] },
    ...{ guardMode: "strict", createdAt: "2026-11-20T12:00:00.000Z" },
  });
  expect(parts?.cell(range, 0)).toBe("1 range");
});

test("progress shows what has several lines as one, and lets no control character through", async () => {
  let out = "";
  const stderr = {
    write: async (text: string) => {
      out += text;
    },
    isTerminal: false,
    columns: () => undefined,
  };
  const progress = createProgress({ stderr, paint: plain, quiet: false });
  await progress.now("migrate failed:\r\n  syntax\u001b[2J error\n\n  at 3\n");
  await progress.done("failed", "one\ntwo");
  expect(out).toBe("migrate failed: | syntax\\x1b[2J error | at 3\n✘ one | two\n");
});
