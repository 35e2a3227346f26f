/** `cellctl assess REF`: in which phase a system is, which symptom says so, and what to do first. */
import { type Assessment, loadAssess, noteExposedPassword } from "../adoption.ts";
import { CliError, usage } from "../failures.ts";
import { flag, type Options, type Register, text } from "../grammar.ts";
import { assessPage } from "../render/assess-page.ts";
import type { View } from "../render/output.ts";
import { parseDuration } from "../render/units.ts";
import type { Session } from "../session.ts";

const sampleDefaultMs = 5000;
const sampleMsMax = 3_600_000;

const view: View<Assessment> = {
  id: ({ id }) => id,
  columns: [
    { head: "DATABASE", cell: ({ id }) => id },
    { head: "PHASE", cell: ({ phase }) => phase },
  ],
};

export const register: Register = (noun, bind) => {
  noun
    .argument("[reference]", "the database: env:NAME, file:PATH or exec:COMMAND")
    .option("--database-url <reference>", "the same, as other commands have it")
    .option("--sample <time>", "how long to look (default: 5s); 0 for one look")
    .option("--cores <count>", "processors of the machine: without it, its load is not judged")
    .option("--key-column <column>", "whose row it is (default: guessed)")
    .option("--exact", "count the rows of tenants instead of believing the statistics")
    .addHelpText(
      "after",
      `
Reads statistics only, and changes nothing; the login needs no more than CONNECT, and sees more with
pg_monitor. Example: cellctl assess env:DATABASE_URL --cores 16 --sample 1m`,
    );
  bind(noun, async (session, [argument], options) => {
    const reference = argument ?? text(options, "databaseUrl");
    if (reference === undefined) throw usage("name the database: cellctl assess env:DATABASE_URL");
    if (argument !== undefined && text(options, "databaseUrl") !== undefined) {
      throw usage("name the database once");
    }
    await noteExposedPassword(session, reference);
    const { assess } = await loadAssess();
    const assessment = await assess({
      database: { reference, env: session.io.env, signal: session.interrupted() },
      clock: session.io.clock,
      signal: session.interrupted(),
      sampleMs: sampleOf(options),
      cores: coresOf(options),
      keyColumn: text(options, "keyColumn"),
      exact: flag(options, "exact"),
      onProgress: (line) => session.progress.now(line),
    }).catch((error: unknown) => {
      throw session.interrupted().aborted
        ? new CliError("DETACHED", "interrupted; nothing was judged")
        : error;
    });
    await session.progress.clear();
    await print(session, assessment);
    return 0;
  });
};

function print({ out }: Session, assessment: Assessment): Promise<void> {
  return out.structured || out.format === "name"
    ? out.one(assessment, view)
    : out.text(assessPage(assessment));
}

function sampleOf(options: Options): number {
  const raw = text(options, "sample");
  if (raw === undefined) return sampleDefaultMs;
  const ms = parseDuration(raw);
  if (ms !== undefined && ms <= sampleMsMax) return ms;
  throw usage(`--sample "${raw}": must be a time such as 5s or 10m, at most 1h`);
}

function coresOf(options: Options): number | null {
  const raw = text(options, "cores");
  if (raw === undefined) return null;
  if (/^[1-9]\d{0,3}$/.test(raw)) return Number(raw);
  throw usage(`--cores "${raw}": must be a number of processors`);
}
