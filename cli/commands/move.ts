/** `cellctl move …`: tenants from one cell to another, while they are served. */
import { CellError, isErrorCode } from "../../contract/errors.ts";
import {
  type MoveAction,
  moveActedSchema,
  movePlansSchema,
  moveSchema,
  moveStatesAsked,
  moveSteps,
  startedMovesSchema,
} from "../../contract/move-api.ts";
import { apiPath } from "../api.ts";
import { confirm, type Danger } from "../confirm.ts";
import { usage } from "../failures.ts";
import {
  destructive,
  flag,
  intent,
  mutation,
  type Options,
  overridable,
  type Register,
  text,
} from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import {
  cancelled,
  concludeMoves,
  followMoves,
  type Goal,
  over,
  served,
  verifiedAfter,
} from "../move-follow.ts";
import { bodyOf, selection, selectionWords } from "../move-selection.ts";
import { nextSteps, sendChange } from "../mutate.ts";
import { actedView, moveView, plansView, startedView } from "../render/views-move.ts";
import type { Session } from "../session.ts";

export const register: Register = (noun, bind) => {
  bind(
    selection(
      noun
        .command("plan [tenants...]")
        .description("look at both cells: every check, what it costs, what will be done"),
    ),
    plan,
  );
  bind(
    overridable(
      intent(
        selection(
          noun
            .command("start [tenants...]")
            .description("begin to move them; all of them, or none where one is refused"),
        ),
      ),
    ).option("--wait", "switch by itself, and wait until the target serves and is verified"),
    start,
  );
  bind(
    noun
      .command("ls")
      .description("list moves, newest first")
      .option("--state <state>", moveStatesAsked.join(", "))
      .option("--step <step>", "only those at this step")
      .option("--cell <cell>", "only from or to this cell")
      .option("--tenant <tenant>", "only of this tenant")
      .option("--limit <rows>", "at most this many (default: all)"),
    list,
  );
  bind(
    noun.command("show <move>").alias("get").description("one move, with all that is known of it"),
    async (session, [id = ""]) => {
      const api = await session.api();
      await session.out.one(await api.get(apiPath`/v1/moves/${id}`, moveSchema), moveView);
      return 0;
    },
  );
  bind(
    noun
      .command("watch <move>")
      .description("follow a move to its end (Ctrl-C only stops watching)"),
    watch,
  );
  registerActions(noun, bind);
};

const registerActions: Register = (noun, bind) => {
  bind(
    mutation(noun.command("verify <move>").description("compare the rows in both cells once more")),
    act("verify", { goal: verifiedAfter }),
  );
  bind(
    mutation(
      noun.command("switch <move>").description("let the target serve, as soon as it is ready"),
    ),
    act("switch", { goal: () => served }),
  );
  bind(
    mutation(
      noun
        .command("reverse <move>")
        .description("while it soaks: back to the source, with all that was written since"),
    ),
    act("reverse", { goal: () => served }),
  );
  bind(
    destructive(
      noun
        .command("complete <move>")
        .description("end the soak: close the way back, remove the source's rows"),
    ),
    act("complete", {
      goal: () => over,
      effect: (id) =>
        `The way back of ${id} is closed, and the rows in the source cell are removed.`,
    }),
  );
  bind(
    mutation(
      noun.command("cancel <move>").description("before the switch: end it; the source serves on"),
    ),
    act("cancel", { goal: () => cancelled }),
  );
  bind(
    intent(noun.command("pause <move>").description("before the switch: begin no further step")),
    act("pause", {}),
  );
  bind(
    intent(noun.command("resume <move>").description("go on with a move that was paused")),
    act("resume", {}),
  );
};

/** Exit code 4 where something stands against it, as `move start` would be refused. */
async function plan(
  session: Session,
  tenants: readonly string[],
  options: Options,
): Promise<number> {
  const api = await session.api();
  const plans = await api.send("POST", "/v1/moves/plan", {
    body: bodyOf(tenants, options),
    schema: movePlansSchema,
    idempotencyKey: session.io.random.uuid(),
  });
  await session.out.one(plans, plansView);
  const refused = plans.items.flatMap(({ checks }) =>
    checks.filter(({ verdict }) => verdict === "refused"),
  );
  if (refused.length > 0) {
    const first = [...new Set(refused.map(({ text: found }) => found))].slice(0, shownMax);
    // As `move start` would end.
    const code = refused[0]?.code ?? "MOVE_UNFIT";
    throw new CellError(
      isErrorCode(code) ? code : "MOVE_UNFIT",
      `It cannot be moved as things stand: ${first.join("; ")}`,
      {
        nextSteps: [...new Set(refused.map(({ fix }) => fix))]
          .filter((fix) => fix !== "")
          .slice(0, shownMax),
      },
    );
  }
  if (plans.items.length > 0) {
    await nextSteps(session, [`cellctl move start ${selectionWords(tenants, options)} --wait`]);
  }
  return 0;
}

const shownMax = 5;

async function start(
  session: Session,
  tenants: readonly string[],
  options: Options,
): Promise<number> {
  const change = { path: "/v1/moves", body: bodyOf(tenants, options) };
  if (flag(options, "dryRun")) {
    const plans = await sendChange(session, options, change, movePlansSchema);
    await session.out.one(plans, plansView);
    await session.note("Nothing was changed: this was a dry run.");
    return 0;
  }
  const started = await sendChange(session, options, change, startedMovesSchema);
  for (const { object, text: why } of started.skipped) {
    await session.progress.done("note", `${object} ${why}`);
  }
  if (!flag(options, "wait")) {
    await printStarted(session, started);
    await nextSteps(session, started.next_steps);
    return 0;
  }
  const moves = await followMoves(session, started.items, served);
  await concludeMoves(session, moves, served);
  const [only] = moves;
  const back = moves.length === 1 && only?.step === "soaking" ? only.id : undefined;
  const next =
    back === undefined ? [] : [`cellctl move complete ${back}`, `cellctl move reverse ${back}`];
  await printStarted(session, { ...started, items: [...moves], next_steps: next });
  await nextSteps(session, next);
  return 0;
}

/** A program gets the whole answer; people get a table of moves. */
async function printStarted(
  session: Session,
  started: ReturnType<typeof startedMovesSchema.parse>,
): Promise<void> {
  if (session.out.structured) return session.out.one(started, startedView);
  const pages = (async function* () {
    yield { items: started.items, next: null };
  })();
  await session.out.list(pages, moveView);
}

async function list(session: Session, _args: readonly string[], options: Options): Promise<number> {
  const state = oneOf(options, "state", moveStatesAsked);
  const step = oneOf(options, "step", moveSteps);
  const query = { state, step, cell: text(options, "cell"), tenant: text(options, "tenant") };
  const api = await session.api();
  const limit = parseLimit(options);
  await session.out.list(api.pages("/v1/moves", moveSchema, { query, limit }), moveView);
  return 0;
}

function oneOf(options: Options, name: string, known: readonly string[]): string | undefined {
  const value = text(options, name);
  if (value === undefined || known.includes(value)) return value;
  throw usage(`--${name} "${value}": must be one of ${known.join(", ")}`);
}

async function watch(session: Session, [id = ""]: readonly string[]): Promise<number> {
  const api = await session.api();
  const first = await api.get(apiPath`/v1/moves/${id}`, moveSchema);
  const moves = await followMoves(session, [first], over);
  await concludeMoves(session, moves, over);
  for (const move of moves) await session.out.one(move, moveView);
  return 0;
}

type Way = {
  /** What is waited for; absent: it is done when the answer comes. */
  readonly goal?: (before: ReturnType<typeof moveSchema.parse>) => Goal;
  readonly effect?: (id: string) => string;
};

const act =
  (action: MoveAction, way: Way) =>
  async (session: Session, [id = ""]: readonly string[], options: Options): Promise<number> => {
    const path = `${apiPath`/v1/moves/${id}`}/${action}`;
    const isDry = flag(options, "dryRun");
    if (way.effect !== undefined && !isDry) {
      const danger: Danger = { name: id, effect: way.effect(id) };
      await confirm(session, danger, text(options, "confirm"));
    }
    const acted = await sendChange(session, options, { path }, moveActedSchema);
    if (isDry || way.goal === undefined || options["wait"] === false) {
      await session.out.one(acted, actedView);
      if (isDry)
        await session.note(`${action} is possible. Nothing was changed: this was a dry run.`);
      else await nextSteps(session, acted.next_steps);
      return 0;
    }
    const goal = way.goal(acted.move);
    const [move = acted.move] = await followMoves(session, [acted.move], goal);
    await concludeMoves(session, [move], goal);
    await session.out.one({ ...acted, move, next_steps: [] }, actedView);
    if (goal === served && move.step === "soaking") {
      await nextSteps(session, [
        `cellctl move complete ${move.id}`,
        `cellctl move reverse ${move.id}`,
      ]);
    }
    return 0;
  };
