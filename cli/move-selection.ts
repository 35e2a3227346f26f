/** The command line of `move plan` and `move start`, as the API asks for it; and as a command again. */
import type { Command } from "commander";
import { moveOptionsSchema } from "../contract/move-api.ts";
import { usage } from "./failures.ts";
import { collect, flag, type Options, text, texts } from "./grammar.ts";
import { quoted } from "./quoted.ts";
import { parseDuration, parseSize } from "./render/units.ts";

export const selection = (command: Command): Command =>
  command
    .requiredOption("--to <cell>", "the cell to move to")
    .option("--key <key>", "a placement key, such as users/slot/7; repeat for more", collect)
    .option("--selector <labels>", "tenants with these labels: tier=gold,team=a")
    .option("--from <cell>", "only what is in this cell")
    .option("--keyspace <keyspace>", "only tenants of this keyspace")
    .option("--together <n>", "so many keys share one move and one pause (default: 1)")
    .option("--switch <auto|manual>", "by itself when ready, or on `move switch` (default: manual)")
    .option("--soak <time>", "how long it can be taken back after the switch (default: 30m)")
    .option("--pause-budget <time>", "longest time that requests wait (default: 800ms)")
    .option("--tries <n>", "how often a switch is tried (default: 5)")
    .option("--rate <size>", "bytes per second of the copy, such as 50MB/s (default: no limit)");

const defaults = moveOptionsSchema.parse({});

/** Members that were given; the API knows the defaults. */
export function bodyOf(tenants: readonly string[], options: Options) {
  const keys = texts(options, "key");
  const selector = text(options, "selector");
  if (tenants.length === 0 && keys.length === 0 && selector === undefined) {
    throw usage(
      "nothing is selected: name tenants, or --key, or --selector",
      "cellctl move plan TENANT --to CELL",
    );
  }
  const together = numberOf(options, "together", 1, 100);
  return {
    to: text(options, "to"),
    ...(tenants.length === 0 ? {} : { tenants }),
    ...(keys.length === 0 ? {} : { keys }),
    ...(selector === undefined ? {} : { selector }),
    ...given(options, "from"),
    ...given(options, "keyspace"),
    ...(together === undefined ? {} : { together }),
    options: moveOptions(options),
  };
}

const given = (options: Options, name: string): Readonly<Record<string, string>> => {
  const value = text(options, name);
  return value === undefined ? {} : { [name]: value };
};

function moveOptions(options: Options): Readonly<Record<string, unknown>> {
  const when = switchOf(options);
  const soakMs = timeOf(options, "soak");
  const pauseBudgetMs = timeOf(options, "pauseBudget");
  const switchTriesMax = numberOf(options, "tries", 1, 100);
  const copyRateMax = rateOf(text(options, "rate"));
  return {
    ...(when === undefined ? {} : { switch: when }),
    ...(soakMs === undefined ? {} : { soakMs }),
    ...(pauseBudgetMs === undefined ? {} : { pauseBudgetMs }),
    ...(switchTriesMax === undefined ? {} : { switchTriesMax }),
    ...(copyRateMax === undefined ? {} : { copyRateMax }),
  };
}

/** Who waits until the target serves wants it to be switched. */
function switchOf(options: Options): "auto" | "manual" | undefined {
  const when = text(options, "switch");
  if (when !== undefined && when !== "auto" && when !== "manual") {
    throw usage(`--switch "${when}": must be auto or manual`);
  }
  if (!flag(options, "wait")) return when;
  if (when === "manual") {
    throw usage("--wait ends when the target serves, and --switch manual waits for somebody else");
  }
  return "auto";
}

const times = {
  soak: { said: "--soak", option: "soakMs", example: "30m or 2h", range: "30d at most" },
  pauseBudget: {
    said: "--pause-budget",
    option: "pauseBudgetMs",
    example: `${defaults.pauseBudgetMs}ms or 2s`,
    range: "from 50ms to 60s",
  },
} as const;

/** A bare number may be meant as anything: 800 is a second's part to one and a quarter of an hour to another. */
const hasNoUnit = (raw: string): boolean => /^[\d.]*$/.test(raw) && Number(raw) !== 0;

function timeOf(options: Options, name: keyof typeof times): number | undefined {
  const raw = text(options, name);
  if (raw === undefined) return undefined;
  const { said, option, example, range } = times[name];
  if (hasNoUnit(raw)) throw usage(`${said} "${raw}": the unit is missing; say ${example}`);
  const value = parseDuration(raw);
  if (value === undefined) throw usage(`${said} "${raw}": must be a time such as ${example}`);
  const ms = Math.round(value);
  if (moveOptionsSchema.shape[option].safeParse(ms).success) return ms;
  throw usage(`${said} "${raw}": must be ${range}, such as ${example}`);
}

function numberOf(
  options: Options,
  name: "together" | "tries",
  min: number,
  max: number,
): number | undefined {
  const raw = text(options, name);
  if (raw === undefined) return undefined;
  const value = Number(raw);
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw usage(`--${name} "${raw}": must be a number from ${min} to ${max}`);
}

function rateOf(raw: string | undefined): number | undefined {
  if (raw === undefined) return undefined;
  const size = raw.replace(/\/s$/, "");
  if (hasNoUnit(size)) throw usage(`--rate "${raw}": the unit is missing; say 50MB/s`);
  const rate = parseSize(size);
  if (rate === undefined) throw usage(`--rate "${raw}": must be bytes per second, such as 50MB/s`);
  if (moveOptionsSchema.shape.copyRateMax.safeParse(rate).success) return rate;
  throw usage(`--rate "${raw}": must be 1KiB/s or more, such as 50MB/s`);
}

/** As they were given; `--wait` says when to switch. */
const repeated = [
  ["selector", "--selector"],
  ["from", "--from"],
  ["keyspace", "--keyspace"],
  ["together", "--together"],
  ["soak", "--soak"],
  ["pauseBudget", "--pause-budget"],
  ["tries", "--tries"],
  ["rate", "--rate"],
] as const;

/** `acme globex --to cell-02`, to be written after another verb. */
export function selectionWords(tenants: readonly string[], options: Options): string {
  const said = repeated.flatMap(([name, flagName]) => {
    const value = text(options, name);
    return value === undefined ? [] : [flagName, quoted(value)];
  });
  const keys = texts(options, "key").flatMap((key) => ["--key", quoted(key)]);
  return [...tenants.map(quoted), ...keys, ...said, "--to", quoted(text(options, "to") ?? "")].join(
    " ",
  );
}
