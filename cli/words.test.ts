/** The command line itself: help as golden text, mistyped words, exit codes of what never reaches a fleet. */
import { describe, expect, test } from "vitest";
import { csvColumns } from "../control-plane/core/import-line.ts";
import { cellctl } from "./cli.fixture.ts";
import { formatAsked, nouns, spokenNoun } from "./program.ts";
import { similar } from "./similar.ts";

describe("help", { timeout: 30_000 }, () => {
  test("of cellctl", async () => {
    const { code, stdout, stderr } = await cellctl(["--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatchSnapshot();
    expect((await cellctl([])).stdout).toBe(stdout);
  });

  for (const { name } of nouns) {
    test(`of ${name}`, async () => {
      const { code, stdout } = await cellctl([name, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toMatchSnapshot();
    });
  }

  test("of a verb that changes something", async () => {
    expect((await cellctl(["cell", "destroy", "--help"])).stdout).toMatchSnapshot();
    expect((await cellctl(["route", "override", "add", "--help"])).stdout).toMatchSnapshot();
    expect((await cellctl(["tenant", "import", "--help"])).stdout).toMatchSnapshot();
  });

  test("can be asked for with the word help, too", async () => {
    for (const path of [[], ["tenant"], ["tenant", "create"]]) {
      const { code, stdout } = await cellctl(["help", ...path]);
      expect({ code, stdout }).toEqual({
        code: 0,
        stdout: (await cellctl([...path, "--help"])).stdout,
      });
    }
  });

  test("of the import names every column that the control plane knows", async () => {
    const { stdout } = await cellctl(["tenant", "import", "--help"]);
    expect(stdout).toContain(`${csvColumns.join(", ")}, label.NAME`);
  });

  test("a noun without its verb says on standard error what can follow", async () => {
    const { code, stdout, stderr } = await cellctl(["cell"]);
    expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
    expect(stderr).toContain("cordon");
  });
});

describe("what cannot be understood", () => {
  test.each([
    [["cel", "ls"], "did you mean cell?"],
    [["cell", "lss"], "did you mean ls?"],
    [["router", "lss"], "did you mean ls?"],
    [["dev", "strat", "router-01"], "did you mean start?"],
    [["cell", "create", "cell-04", "--dry-runn"], "did you mean --dry-run?"],
    [["cell", "get"], "missing required argument"],
    [["cell", "get", "a", "b"], "too many arguments"],
    [["cell", "ls", "-o", "xml"], "must be one of table, wide, json, yaml, name"],
    [["cell", "ls", "--color", "pink"], "must be one of auto, always, never"],
    [["cell", "ls", "--timeout", "soon"], "must be a time"],
    [["cell", "create", "c", "--capacity", "many"], "is not a number"],
    [["tenant", "create", "t", "--size", "big"], "must be a number of bytes"],
    [["tenant", "create", "t", "--label", "nonsense"], "must be NAME=VALUE"],
    [["tenant", "import", "tenants.txt"], "cannot tell the format"],
    [["events", "--since", "yesterday"], "must be a time"],
    [["op", "ls", "--state", "lost"], "must be one of pending"],
    [["completion", "tcsh"], "must be one of bash"],
    [["keyspace", "create", "k", "--strategy", "slots"], "needs --slots"],
    [["keyspace", "create", "k", "--strategy", "range", "--slots", "8"], "--slots goes with"],
    [["keyspace", "create", "k", "--strategy", "slots", "--slots", "6"], "a power of two"],
    [["route", "resolve"], "name what to resolve"],
    [["router"], "needs --listen"],
    [["status", "--context", "a", "--data", "b"], "give one of them"],
  ])("%j", async (args, text) => {
    const { code, stdout, stderr } = await cellctl(args);
    expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
    expect(stderr).toMatch(/^Error \[USAGE\]: /);
    expect(stderr).toContain(text);
    expect(stderr).toContain("More: cellctl explain USAGE");
  });

  test.each([
    [["cel", "ls"], "cellctl --help"],
    [["op", "shwo"], "cellctl op --help"],
    [["router", "lss"], "cellctl router --help"],
    [["-o", "json", "-q", "tenant", "create"], "cellctl tenant create --help"],
    [["tenant", "create", "a", "--label", "nonsense"], "cellctl tenant create --help"],
    [["route", "override", "add", "--nonsense"], "cellctl route override add --help"],
  ])("%j has the help of its own command as the next step", async (args, help) => {
    const { stderr } = await cellctl([...args, "-o", "json"]);
    expect(JSON.parse(stderr).error.next_steps).toEqual([help]);
  });

  test("is told as JSON where JSON was asked for", async () => {
    for (const args of [
      ["-o", "json", "cel"],
      ["cel", "--output=json"],
      ["cel", "-ojson"],
    ]) {
      const { stderr } = await cellctl(args);
      expect(JSON.parse(stderr)).toEqual({
        error: {
          code: "USAGE",
          message: expect.stringContaining("did you mean cell?"),
          changed: false,
          next_steps: ["cellctl --help"],
        },
      });
    }
  });
});

describe("parsing", () => {
  test("the noun is found behind global options", () => {
    expect(spokenNoun(["-o", "json", "cell", "ls"])).toBe("cell");
    expect(spokenNoun(["--output=json", "-q", "--data", "tenant", "cell"])).toBe("cell");
    expect(spokenNoun(["--help"])).toBeUndefined();
  });

  test("the format is found wherever it stands", () => {
    expect(formatAsked(["cell", "ls", "-o", "json"])).toBe("json");
    expect(formatAsked(["-o=json"])).toBe("json");
    expect(formatAsked(["cell"])).toBeUndefined();
  });

  test("similar words are a slip away, not more", () => {
    expect(similar("cell-1", ["cell-01", "cell-02", "other"])).toEqual(["cell-01"]);
    expect(similar("tenatn", ["tenant", "token"])).toEqual(["tenant"]);
    expect(similar("zzz", ["cell", "op"])).toEqual([]);
  });
});

describe("explain", () => {
  test.each([
    ["CELL_UNREACHABLE", "error"],
    ["tenant_unknown", "error"],
    ["WAIT_TIMEOUT", "error"],
    ["CF001", "sqlstate"],
    ["key_changed", "sqlstate"],
    ["cell", "kind"],
    ["cell.lease", "field"],
    ["op.steps", "field"],
    ["placement.epoch", "field"],
  ])("%s is a known %s", async (word, kind) => {
    const { code, stdout } = await cellctl(["explain", word, "-o", "json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ kind, text: expect.stringMatching(/\w/) });
  });

  test("an unknown word has a neighbour, or the list", async () => {
    const { code, stderr } = await cellctl(["explain", "cell.leases"]);
    expect(code).toBe(5);
    expect(stderr).toContain("cellctl explain cell.lease");
    expect((await cellctl(["explain", "constructor"])).code).toBe(5);
  });
});
