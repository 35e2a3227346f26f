/**
 * `cellctl top`: what goes through the fleet now, read from the admin ports of its routers. On a terminal it
 * redraws itself; elsewhere, with `--once` and for programs it is one look, over one interval.
 */
import { CellError } from "../../contract/errors.ts";
import { cliErrorTable, usage } from "../failures.ts";
import { collect, flag, type Options, type Register, text, texts } from "../grammar.ts";
import type { View } from "../render/output.ts";
import { printable } from "../render/printable.ts";
import { parseDuration } from "../render/units.ts";
import { askRouters, findRouters, type Silent } from "../router-admins.ts";
import type { Session } from "../session.ts";
import { type Figures, figuresOf, type Look } from "../top/figures.ts";
import { parseMetrics, type Sample } from "../top/metrics-text.ts";
import { drawTop, type Sections, sections, sortKeys } from "../top/page.ts";

const intervalLeastMs = 200;
const rowsDefault = 10;
const clearScreen = "\u001b[H\u001b[J";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .argument("[what]", "cells, tenants or routers (default: all)")
      .option("--once", "one look, then end (the default where no terminal is)")
      .option("-n, --rows <count>", `at most so many cells and tenants (default: ${rowsDefault})`)
      .option("--sort <key>", `cells by ${sortKeys.join(", ")} (default: rps)`)
      .option("--interval <time>", "between two looks (default: 2s)")
      .option(
        "--router-admin <url>",
        "this router, by its admin port (repeatable; default: all that the fleet knows)",
        collect,
      ),
    async (session, [what], options) => {
      const wanted = readOptions(what, options);
      const live =
        session.io.stdout.isTerminal && !session.out.structured && !flag(options, "once");
      return live ? watch(session, wanted) : once(session, wanted);
    },
  );
};

type Wanted = {
  readonly shown: Sections;
  readonly rows: number;
  readonly sort: (typeof sortKeys)[number];
  readonly intervalMs: number;
  readonly named: readonly string[];
};

function readOptions(what: string | undefined, options: Options): Wanted {
  const section = sections.find((one) => one === what);
  if (what !== undefined && section === undefined) {
    throw usage(`"${what}" is none of ${sections.join(", ")}`, "cellctl top cells");
  }
  const rows = Number(text(options, "rows") ?? rowsDefault);
  if (!Number.isSafeInteger(rows) || rows < 1) throw usage("--rows must be a number above 0");
  const said = text(options, "sort") ?? "rps";
  const sort = sortKeys.find((key) => key === said);
  if (sort === undefined) throw usage(`--sort "${said}": must be one of ${sortKeys.join(", ")}`);
  const intervalMs = parseDuration(text(options, "interval") ?? "2s") ?? 0;
  if (intervalMs < intervalLeastMs) throw usage("--interval must be a time of 200ms or more");
  const shown = section === undefined ? sections : [section];
  return { shown, rows, sort, intervalMs, named: texts(options, "routerAdmin") };
}

type Seen = { readonly look: Look; readonly silent: readonly Silent[] };

/** The routers are looked up every time: they come and go. */
async function look(session: Session, { named }: Wanted): Promise<Seen> {
  const routers = await findRouters(session, named);
  const { answers, silent } = await askRouters(routers, "/metrics", parseMetrics);
  if (answers.length === 0) {
    const told = silent.map(({ router, why }) => `${router} (${why})`).join(", ");
    throw new CellError(
      "NOT_FOUND",
      told === "" ? "the fleet has no router" : `no router shows its metrics: ${told}`,
      { nextSteps: ["cellctl router ls"] },
    );
  }
  const pages = new Map<string, readonly Sample[]>();
  for (const { router, value } of answers) pages.set(router, value);
  return { look: { atMs: session.io.clock.monotonicMs(), routers: pages }, silent };
}

async function once(session: Session, wanted: Wanted): Promise<number> {
  const first = await look(session, wanted);
  await session.io.clock.sleep(wanted.intervalMs, session.interrupted());
  if (session.interrupted().aborted) return cliErrorTable.DETACHED.exit;
  const second = await look(session, wanted);
  const figures = figuresOf(first.look, second.look);
  const shown = { ...figures, silent: second.silent };
  if (session.out.structured) await session.out.one(shown, jsonView);
  else await session.out.text(draw(session, wanted, figures, second.silent));
  return 0;
}

async function watch(session: Session, wanted: Wanted): Promise<number> {
  const signal = session.interrupted();
  let before = (await look(session, wanted)).look;
  await session.io.stdout.write("one moment …\n");
  for (;;) {
    await session.io.clock.sleep(wanted.intervalMs, signal);
    if (signal.aborted) return cliErrorTable.DETACHED.exit;
    try {
      const { look: now, silent } = await look(session, wanted);
      const page = draw(session, wanted, figuresOf(before, now), silent);
      await session.io.stdout.write(`${clearScreen}${page}`);
      before = now;
    } catch (error) {
      // Who watches wants to see it come back.
      if (!(error instanceof CellError)) throw error;
      await session.io.stdout.write(`${clearScreen}${printable(error.message)}\n`);
    }
  }
}

const draw = (
  session: Session,
  wanted: Wanted,
  figures: Figures,
  silent: readonly Silent[],
): string =>
  drawTop(figures, silent, {
    ...wanted,
    wide: session.out.format === "wide",
    names: session.out.format === "name",
    paint: session.paint,
    nowMs: session.io.clock.nowMs(),
  });

type Shown = Figures & { readonly silent: readonly Silent[] };
const jsonView: View<Shown> = { id: () => "top", columns: [] };
