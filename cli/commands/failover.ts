/** `cellctl failover …`: take the tenants of a dead cell over, or empty a healthy one. */

import type { Command } from "commander";
import { cellSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import {
  type Detection,
  detectionSchema,
  type Failover,
  type FailoverAction,
  failoverActedSchema,
  failoverDryRunSchema,
  failoverModes,
  failoverPolicies,
  failoverSchema,
} from "../../contract/failover-api.ts";
import { apiPath } from "../api.ts";
import { confirm } from "../confirm.ts";
import { concludeFailover, followFailover, over, servedAgain } from "../failover-follow.ts";
import { failoverReportView } from "../failover-report.ts";
import { usage } from "../failures.ts";
import {
  collect,
  destructive,
  flag,
  intent,
  mutation,
  type Options,
  type Register,
  text,
  texts,
} from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import { nextSteps, sendChange } from "../mutate.ts";
import {
  detectionView,
  failoverActedView,
  failoverPlanView,
  failoverView,
} from "../render/views-failover.ts";
import type { Session } from "../session.ts";
import { registerRestore } from "./salvage.ts";

const modeOptions = (command: Command): Command =>
  command
    .option("--mode <mode>", `${failoverModes.join(" or ")} (default: unplanned)`)
    .option(
      "--proved-dead",
      "you have seen that it is powered off: wait for no promise; a cell with manual leases wants it",
    );

export const register: Register = (noun, bind) => {
  bind(
    modeOptions(
      noun
        .command("plan <cell>")
        .description("who would take what, how far behind, and which gates are closed"),
    ),
    plan,
  );
  bind(
    modeOptions(
      destructive(
        noun
          .command("start <cell>")
          .description("give the tenants of a cell that is gone to its partners"),
      ),
    )
      .option("--override <gate>", "go past this gate; repeat for more (wants --reason)", collect)
      .option("--allow-data-loss", "adopt from partners that are too far behind (wants --reason)"),
    start,
  );
  bind(
    noun
      .command("status [failover]")
      .description("one failover, or what witnesses say of every cell"),
    status,
  );
  bind(
    noun
      .command("ls")
      .description("list failovers, newest first")
      .option("--cell <cell>", "only of this cell")
      .option("--open", "only those that are not over")
      .option("--limit <rows>", "at most this many (default: all)"),
    list,
  );
  bind(
    noun
      .command("watch <failover>")
      .description("follow it to its end (Ctrl-C only stops watching)"),
    watch,
  );
  bind(
    noun
      .command("report <failover>")
      .description("which acknowledged writes are lost or unknown, tenant by tenant"),
    report,
  );
  registerActions(noun, bind);
  registerRestore(noun, (command, action) =>
    bind(command, async (session, args, options) => {
      await requireBack(session, args[0] ?? "");
      return action(session, args, options);
    }),
  );
};

/** Before anybody is asked to confirm: moves into a cell that is not trusted yet would all be refused. */
async function requireBack(session: Session, id: string): Promise<void> {
  const api = await session.api();
  const { state } = await api.get(apiPath`/v1/cells/${id}`, cellSchema);
  if (state !== "quarantined") return;
  throw new CellError(
    "STATE_CONFLICT",
    `${id} is quarantined: its tenants come home when it has been salvaged and wiped.`,
    {
      details: { cell: id, state },
      nextSteps: [`cellctl cell salvage ${id}`, `cellctl cell wipe ${id}`],
    },
  );
}

const registerActions: Register = (noun, bind) => {
  bind(
    mutation(
      noun
        .command("abort <failover>")
        .description("while nothing is severed: call it off, the cell serves again"),
    ),
    act("abort"),
  );
  bind(
    mutation(
      noun
        .command("resume <failover>")
        .description("after a halt: go on without the tenants that are suspected"),
    ),
    act("resume"),
  );
  bind(
    intent(
      noun
        .command("policy [policy]")
        .description("what is done about a cell that is gone; shows it, or sets it")
        .option("--reset", "as the control plane was started"),
    ),
    policy,
  );
};

function modeOf(options: Options): string | undefined {
  const mode = text(options, "mode");
  if (mode === undefined || failoverModes.some((known) => known === mode)) return mode;
  throw usage(`--mode "${mode}": must be one of ${failoverModes.join(", ")}`);
}

function askedOf(cell: string, options: Options): Record<string, unknown> {
  const mode = modeOf(options);
  return {
    cell,
    ...(mode === undefined ? {} : { mode }),
    ...(flag(options, "provedDead") ? { provedDead: true } : {}),
  };
}

/** Exit code 4 while a gate is closed, as `failover start` would be refused. */
async function plan(
  session: Session,
  [cell = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const api = await session.api();
  const planned = await api.send("POST", "/v1/failovers/plan", {
    body: askedOf(cell, options),
    schema: failoverDryRunSchema,
    idempotencyKey: session.io.random.uuid(),
  });
  await session.out.one(planned, failoverPlanView());
  const closed = planned.plan.gates.filter(({ verdict }) => verdict === "block");
  if (closed.length > 0) {
    const said = closed.map(({ name, text: why }) => `${name}: ${why}`).join("; ");
    throw new CellError("FAILOVER_BLOCKED", `${cell} would not be taken over: ${said}.`, {
      nextSteps: planned.next_steps.filter((step) => !step.startsWith("cellctl failover plan")),
    });
  }
  await nextSteps(session, planned.next_steps);
  return 0;
}

async function start(
  session: Session,
  [cell = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const override = texts(options, "override");
  const change = {
    path: "/v1/failovers",
    body: {
      ...askedOf(cell, options),
      ...(override.length === 0 ? {} : { override }),
      ...(flag(options, "allowDataLoss") ? { allowDataLoss: true } : {}),
    },
  };
  if (flag(options, "dryRun")) {
    const planned = await sendChange(session, options, change, failoverDryRunSchema);
    const past = [...override, ...(flag(options, "allowDataLoss") ? ["lag"] : [])];
    await session.out.one(planned, failoverPlanView(past));
    await session.note("Nothing was changed: this was a dry run.");
    await nextSteps(session, planned.next_steps);
    return 0;
  }
  const effect =
    modeOf(options) === "planned"
      ? `The tenants of ${cell} are moved to other cells, live.`
      : `The tenants of ${cell} get other owners; what was not replicated is lost.`;
  await confirm(session, { name: cell, effect }, text(options, "confirm"));
  const begun = await sendChange(session, options, change, failoverActedSchema);
  if (options["wait"] === false) {
    await session.out.one(begun, failoverActedView);
    await nextSteps(session, begun.next_steps);
    return 0;
  }
  const goal = begun.failover.mode === "planned" ? over : servedAgain;
  const failover = await followFailover(session, begun.failover, goal);
  await concludeFailover(session, failover);
  const next = afterwards(failover);
  await session.out.one({ failover, next_steps: next }, failoverActedView);
  await nextSteps(session, next);
  return 0;
}

const afterwards = ({ id, step, mode, cell }: Failover): string[] =>
  mode === "planned"
    ? [`cellctl cell get ${cell}`]
    : [
        `cellctl failover report ${id}`,
        ...(step === "reprotecting" ? [`cellctl failover watch ${id}`] : []),
      ];

async function status(session: Session, [id]: readonly string[]): Promise<number> {
  const api = await session.api();
  if (id !== undefined) {
    const failover = await api.get(apiPath`/v1/failovers/${id}`, failoverSchema);
    await session.out.one(failover, failoverView);
    return 0;
  }
  const detection = await api.get("/v1/detection", detectionSchema);
  await session.out.one(detection, detectionView);
  for await (const { items } of api.pages("/v1/failovers", failoverSchema, {
    query: { open: "true" },
  })) {
    for (const one of items) {
      await session.note(`${one.cell} is being failed over: ${one.step}, ${one.headline}`);
      await session.note(`  cellctl failover watch ${one.id}`);
    }
  }
  return 0;
}

async function list(session: Session, _args: readonly string[], options: Options): Promise<number> {
  const api = await session.api();
  const query = {
    cell: text(options, "cell"),
    ...(flag(options, "open") ? { open: "true" } : {}),
  };
  const limit = parseLimit(options);
  await session.out.list(
    api.pages("/v1/failovers", failoverSchema, { query, limit }),
    failoverView,
  );
  return 0;
}

async function watch(session: Session, [id = ""]: readonly string[]): Promise<number> {
  const api = await session.api();
  const first = await api.get(apiPath`/v1/failovers/${id}`, failoverSchema);
  const failover = await followFailover(session, first, over);
  await concludeFailover(session, failover);
  await session.out.one(failover, failoverView);
  return 0;
}

async function report(session: Session, [id = ""]: readonly string[]): Promise<number> {
  const api = await session.api();
  const failover = await api.get(apiPath`/v1/failovers/${id}`, failoverSchema);
  if (failover.report === null) {
    const { step, mode } = failover;
    const why =
      mode === "planned"
        ? "a planned failover loses nothing: there is none"
        : `it is made when all is routed, and ${id} is ${step}`;
    throw new CellError("STATE_CONFLICT", `There is no report of ${id}: ${why}.`, {
      details: { op: id, step },
      nextSteps: [`cellctl failover watch ${id}`],
    });
  }
  await session.out.one(failover.report, failoverReportView);
  return 0;
}

const act =
  (action: FailoverAction) =>
  async (session: Session, [id = ""]: readonly string[], options: Options): Promise<number> => {
    const path = `${apiPath`/v1/failovers/${id}`}/${action}`;
    const acted = await sendChange(session, options, { path }, failoverActedSchema);
    if (flag(options, "dryRun")) {
      await session.out.one(acted, failoverActedView);
      await session.note(`${action} is possible. Nothing was changed: this was a dry run.`);
      return 0;
    }
    if (options["wait"] === false) {
      await session.out.one(acted, failoverActedView);
      await nextSteps(session, acted.next_steps);
      return 0;
    }
    const goal =
      action === "abort"
        ? over
        : {
            // It stands at `halted` until its executor has heard of the wish.
            isThrough: (one: Failover) =>
              servedAgain.isThrough(one) &&
              (one.step !== "halted" || one.op.version > acted.failover.op.version),
          };
    const failover = await followFailover(session, acted.failover, goal);
    if (action === "abort" && failover.step === "cancelled") {
      await session.progress.done("ok", `${failover.cell} serves as before: ${failover.headline}`);
    } else await concludeFailover(session, failover);
    await session.out.one({ failover, next_steps: [] }, failoverActedView);
    return 0;
  };

async function policy(
  session: Session,
  [wanted]: readonly string[],
  options: Options,
): Promise<number> {
  const isReset = flag(options, "reset");
  if (wanted === undefined && !isReset) {
    const api = await session.api();
    await printPolicy(session, await api.get("/v1/detection", detectionSchema));
    return 0;
  }
  if (isReset === (wanted !== undefined)) throw usage("a policy or --reset, not both");
  if (wanted !== undefined && !failoverPolicies.some((known) => known === wanted)) {
    throw usage(`"${wanted}": must be one of ${failoverPolicies.join(", ")}`);
  }
  const change = {
    ...({ method: "PUT", path: "/v1/failover-policy" } as const),
    body: { policy: wanted ?? null },
  };
  await printPolicy(session, await sendChange(session, options, change, detectionSchema));
  if (flag(options, "dryRun")) await session.note("Nothing was changed: this was a dry run.");
  return 0;
}

const printPolicy = (session: Session, detection: Detection): Promise<void> =>
  session.out.one(detection, detectionView);
