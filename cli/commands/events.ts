/** `cellctl events`: what happened; with `-w`, what happens. */

import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import { eventSchema, type FleetEvent } from "../../contract/event-api.ts";
import type { Api } from "../api.ts";
import { cliErrorTable, usage } from "../failures.ts";
import { flag, type Options, type Register, text } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import type { Page } from "../render/output.ts";
import { eventView } from "../render/views.ts";
import type { Session } from "../session.ts";
import { parseSince } from "../since.ts";

const waitMs = 20_000;
const retryMs = 1000;
/** Largest page of the API. */
const pageMax = 1000;
const newestDefault = 200;
const watchDefault = 20;
const feedSchema = z.object({ items: z.array(eventSchema), next: z.string().nullable() });

export const register: Register = (noun, bind) => {
  bind(
    noun
      .option("-w, --watch", "go on with what happens, until Ctrl-C")
      .option("--since <time>", "from this long ago (1h), or from this ISO time on")
      .option("--limit <rows>", "at most this many (default: the newest 200)"),
    async (session, _args, options) => {
      const said = text(options, "since");
      const nowMs = session.io.clock.nowMs();
      const sinceMs = said === undefined ? Number.NEGATIVE_INFINITY : parseSince(said, nowMs);
      return flag(options, "watch") ? watch(session, sinceMs) : list(session, options, sinceMs);
    },
  );
};

async function list(session: Session, options: Options, sinceMs: number): Promise<number> {
  const api = await session.api();
  const pages =
    sinceMs === Number.NEGATIVE_INFINITY
      ? newest(api, parseLimit(options) ?? newestDefault)
      : since(api, sinceMs, parseLimit(options));
  await session.out.list(pages, eventView);
  return 0;
}

async function* newest(api: Api, limit: number): AsyncGenerator<Page<FleetEvent>> {
  const query = { limit: Math.min(limit, pageMax) };
  yield await api.get("/v1/events", feedSchema, { query });
}

/** From the newest page if it reaches back far enough, else from the beginning. */
async function* since(
  api: Api,
  sinceMs: number,
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<Page<FleetEvent>> {
  const recent = await api.get("/v1/events", feedSchema, { query: { limit: pageMax } });
  const oldest = recent.items[0];
  const isAll = recent.items.length < pageMax || oldest === undefined || at(oldest) < sinceMs;
  let left = limit;
  for await (const page of isAll ? one(recent) : following(api)) {
    const items = page.items.filter((event) => at(event) >= sinceMs).slice(0, left);
    left -= items.length;
    yield { items, next: null };
    if (left <= 0) return;
  }
}

async function* one<T>(page: T): AsyncGenerator<T> {
  yield page;
}

async function* following(api: Api): AsyncGenerator<Page<FleetEvent>> {
  let after = 0;
  for (;;) {
    const page = await api.get("/v1/events", feedSchema, { query: { after, limit: pageMax } });
    const last = page.items.at(-1);
    if (last === undefined) return;
    after = last.id;
    yield page;
  }
}

const at = (event: FleetEvent): number => Date.parse(event.at);

/** One line per event, so that the output can be piped: a table row, a JSON object, or an id. */
async function watch(session: Session, sinceMs: number): Promise<number> {
  if (session.out.format === "yaml")
    throw usage("--watch prints lines: use -o table, wide, json or name");
  const api = await session.api();
  const print = session.out.stream(eventView);
  // Somebody who begins to watch wants to know that nobody answers; later, to see it return.
  const limit = sinceMs === Number.NEGATIVE_INFINITY ? watchDefault : pageMax;
  let { items } = await api.get("/v1/events", feedSchema, { query: { limit } });
  let after = 0;
  for (;;) {
    after = Math.max(after, ...items.map(({ id }) => id));
    await print(items.filter((event) => at(event) >= sinceMs));
    const next = await nextEvents(session, api, after);
    if (next === undefined) return cliErrorTable.DETACHED.exit;
    items = [...next];
  }
}

/** As soon as there is something after `after`; undefined after Ctrl-C. */
async function nextEvents(
  session: Session,
  api: Api,
  after: number,
): Promise<readonly FleetEvent[] | undefined> {
  for (;;) {
    try {
      return (await api.get("/v1/events", feedSchema, { query: { after }, waitMs })).items;
    } catch (error) {
      if (session.interrupted().aborted) return undefined;
      if (!(error instanceof CellError) || error.code !== "CONTROL_PLANE_UNREACHABLE") throw error;
      await session.progress.now("the control plane does not answer; waiting for it");
      await session.io.clock.sleep(retryMs, session.interrupted());
    }
  }
}
