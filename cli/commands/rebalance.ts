/** `cellctl rebalance …`: a plan made from one look at the fleet, saved, and carried out by live moves. */
import { readFile, writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { CellError } from "../../contract/errors.ts";
import {
  type RebalanceAsk,
  type RebalancePlan,
  rebalanceGoals,
  rebalancePlanSchema,
} from "../../contract/rebalance-api.ts";
import { usage } from "../failures.ts";
import {
  collect,
  flag,
  mutation,
  type Options,
  overridable,
  type Register,
  spelled,
  text,
  texts,
} from "../grammar.ts";
import { mutate } from "../mutate.ts";
import { counted, parseSize } from "../render/units.ts";
import { rebalanceView } from "../render/views-rebalance.ts";
import type { Session } from "../session.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("plan")
      .description("what would move where and why; changes nothing")
      .option("--goal <word>", `${rebalanceGoals.join(", ")} (default: balance)`)
      .option("--max-moves <n>", "at most so many moves (default: 1000)")
      .option("--max-bytes <size>", "at most so much data, such as 50GiB (default: 1TiB)")
      .option("--start-above <share>", "plan only above this imbalance (default: 0.15)")
      .option("--stop-below <share>", "end below this imbalance (default: 0.08)")
      .option("--remove-cell <cell>", "what if it were gone; repeat for more", collect)
      .option("--add-cell <cell>", "what if it were there; repeat for more", collect)
      .option("--ignore-cooldown", "also tenants that were moved a short while ago")
      .option("-O, --out <file>", "save the plan, to apply it"),
    plan,
  );
  bind(
    overridable(
      mutation(
        noun
          .command("apply <plan>")
          .description("carry a saved plan out by live moves; refused where the fleet has changed")
          .option("--max-parallel <n>", "moves at the same time (default: 4)"),
      ),
    ),
    apply,
  );
};

async function plan(session: Session, _args: readonly string[], options: Options): Promise<number> {
  const api = await session.api();
  const body = askOf(options);
  const idempotencyKey = session.io.random.uuid();
  const asked = { body, schema: rebalancePlanSchema, idempotencyKey };
  const found = await api.send("POST", "/v1/rebalance/plan", asked);
  const file = text(options, "out");
  if (file !== undefined) {
    await writeFile(resolve(session.io.cwd, file), `${JSON.stringify(found, undefined, 2)}\n`);
  }
  await session.out.one(found, rebalanceView);
  if (file !== undefined) {
    const { length } = found.moves;
    await session.note(
      `${counted(length, "move")} ${length === 1 ? "is" : "are"} planned in ${file}.`,
    );
    if (found.moves.length > 0 && !found.whatIf) {
      await session.note(`Carry it out: cellctl rebalance apply ${file}`);
    }
  }
  return 0;
}

function askOf(options: Options): Readonly<Record<string, unknown>> {
  const removeCells = texts(options, "removeCell");
  const addCells = texts(options, "addCell");
  const bytes = text(options, "maxBytes");
  const bytesMax = bytes === undefined ? undefined : parseSize(bytes);
  if (bytes !== undefined && bytesMax === undefined)
    throw usage(`--max-bytes: "${bytes}" is no size such as 50GiB`);
  const asked: { [name in keyof RebalanceAsk]?: unknown } = {
    goal: text(options, "goal"),
    movesMax: number(options, "maxMoves"),
    bytesMax,
    startAbove: number(options, "startAbove"),
    stopBelow: number(options, "stopBelow"),
    removeCells: removeCells.length === 0 ? undefined : removeCells,
    addCells: addCells.length === 0 ? undefined : addCells,
    ignoreCooldown: flag(options, "ignoreCooldown") ? true : undefined,
  };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
}

function number(options: Options, name: string): number | undefined {
  const said = text(options, name);
  if (said === undefined) return undefined;
  const value = Number(said);
  if (said.trim() === "" || !Number.isFinite(value))
    throw usage(`${spelled(name)}: "${said}" is no number`);
  return value;
}

async function apply(
  session: Session,
  [file = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const parallelMax = number(options, "maxParallel");
  const saved = await readPlan(session, file);
  return mutate(session, options, {
    path: "/v1/rebalance/apply",
    body: { plan: saved, ...(parallelMax === undefined ? {} : { parallelMax }) },
  });
}

async function readPlan(session: Session, file: string): Promise<RebalancePlan> {
  const content = await readFile(resolve(session.io.cwd, file), "utf8").catch((error: unknown) => {
    throw noPlan(file, whyUnreadable(error), error);
  });
  let raw: unknown;
  try {
    raw = JSON.parse(content);
  } catch (error) {
    throw noPlan(file, "is no JSON, so no plan of a rebalance", error);
  }
  const parsed = rebalancePlanSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "" : `${issue.path.join(".")}: `;
  throw noPlan(file, `is no plan of a rebalance: ${where}${issue?.message ?? ""}`);
}

/** The next step never writes over the file that was named: it may be anything. */
const noPlan = (file: string, what: string, cause?: unknown): CellError => {
  const fresh = basename(file) === "plan.json" ? "new-plan.json" : "plan.json";
  const nextSteps = [`cellctl rebalance plan -O ${fresh}`, `cellctl rebalance apply ${fresh}`];
  return new CellError("VALIDATION_FAILED", `${file} ${what}.`, { cause, nextSteps });
};

function whyUnreadable(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "ENOENT") return "does not exist";
  if (code === "EISDIR") return "is a folder, not a plan";
  return code === "EACCES" ? "may not be read by you" : `cannot be read (${code})`;
}
