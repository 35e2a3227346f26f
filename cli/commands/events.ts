/** `cellctl events`: what happened; with `-w`, what happens. */

import { z } from "zod";
import { eventSchema, type FleetEvent } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import type { Api } from "../api.ts";
import { CliError, usage } from "../failures.ts";
import { flag, type Options, type Register, text } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import type { Page } from "../render/output.ts";
import { createPaint } from "../render/paint.ts";
import { printableJson } from "../render/printable.ts";
import { createTable } from "../render/table.ts";
import { parseDuration } from "../render/units.ts";
import { eventView } from "../render/views.ts";
import type { Session } from "../session.ts";

const waitMs = 20_000;
const retryMs = 1000;
const feedSchema = z.object({ items: z.array(eventSchema), next: z.string().nullable() });

export const register: Register = (noun, bind) => {
  bind(
    noun
      .option("-w, --watch", "go on with what happens, until Ctrl-C")
      .option("--since <time>", "from this long ago (1h), or from this ISO time on")
      .option("--limit <rows>", "at most this many (default: all)"),
    async (session, _args, options) => {
      const sinceMs = parseSince(text(options, "since"), session.io.clock.nowMs());
      return flag(options, "watch") ? watch(session, sinceMs) : list(session, options, sinceMs);
    },
  );
};

async function list(session: Session, options: Options, sinceMs: number): Promise<number> {
  const api = await session.api();
  const limit = parseLimit(options);
  const pages = api.pages("/v1/events", eventSchema, { limit });
  await session.out.list(since(pages, sinceMs), eventView);
  return 0;
}

async function* since(pages: AsyncIterable<Page<FleetEvent>>, sinceMs: number) {
  for await (const page of pages) {
    yield { ...page, items: page.items.filter(({ at }) => Date.parse(at) >= sinceMs) };
  }
}

/** One line per event, so that the output can be piped: a table row, a JSON object, or an id. */
async function watch(session: Session, sinceMs: number): Promise<number> {
  if (session.out.format === "yaml")
    throw usage("--watch prints lines: use -o table, wide, json or name");
  const api = await session.api();
  const table = createTable(eventView.columns, {
    wide: session.out.format === "wide",
    headers: true,
    nowMs: session.io.clock.nowMs(),
    paint: createPaint(session.io, session.io.stdout, "auto"),
  });
  let after = 0;
  for (;;) {
    const items = await nextEvents(session, api, after);
    after = Math.max(after, ...items.map(({ id }) => id));
    const shown = items.filter(({ at }) => Date.parse(at) >= sinceMs);
    if (shown.length > 0) await session.out.text(lines(session, table, shown));
  }
}

function lines(
  session: Session,
  table: { readonly page: (rows: readonly FleetEvent[]) => string },
  events: readonly FleetEvent[],
): string {
  const { format } = session.out;
  if (format === "table" || format === "wide") return table.page(events);
  return events
    .map((event) => `${format === "json" ? printableJson(JSON.stringify(event)) : event.id}\n`)
    .join("");
}

async function nextEvents(
  session: Session,
  api: Api,
  after: number,
): Promise<readonly FleetEvent[]> {
  for (;;) {
    if (session.interrupted().aborted) throw stopped();
    try {
      return (await api.get("/v1/events", feedSchema, { query: { after }, waitMs })).items;
    } catch (error) {
      if (session.interrupted().aborted) throw stopped();
      if (!(error instanceof CellError) || error.code !== "CONTROL_PLANE_UNREACHABLE") throw error;
      if (after === 0) throw error;
      await session.progress.now("the control plane does not answer; waiting for it");
      await session.io.clock.sleep(retryMs, session.interrupted());
    }
  }
}

const stopped = (): CliError => new CliError("DETACHED", "stopped watching");

function parseSince(raw: string | undefined, nowMs: number): number {
  if (raw === undefined) return Number.NEGATIVE_INFINITY;
  const ago = parseDuration(raw);
  if (ago !== undefined) return nowMs - ago;
  const at = /^\d{4}-\d{2}-\d{2}/.test(raw) ? Date.parse(raw) : Number.NaN;
  if (Number.isNaN(at)) throw usage(`--since "${raw}": must be a time such as 1h, or an ISO time`);
  return at;
}
