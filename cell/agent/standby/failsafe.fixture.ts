/**
 * For tests of a failsafe: an origin and its annexes, each a real database with a real agent and a control
 * plane of its own that does what the test says.
 */
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { request } from "undici";
import { parseCellId } from "../../../contract/ids.ts";
import type { Partner, TakeoverOrder } from "../../../contract/standby-api.ts";
import { must } from "../../../runtime/assert.ts";
import type { TestPostgres } from "../../../tests/postgres.ts";
import { type AgentBench, openBench, until } from "../agent.fixture.ts";
import type { Agent } from "../agent.ts";
import { listenUrl } from "../fake-control.fixture.ts";

export type TestAnnex = {
  readonly bench: AgentBench;
  readonly agent: Agent;
  readonly partner: Partner;
  /** Of the promise that its control plane heard of last. */
  readonly remainingMs: () => number;
  readonly order: (takeover: TakeoverOrder) => Promise<void>;
};

/** Short, so that tests are; promises last for long unless they say otherwise. */
export const ttlMs = 1200;
const tokenOf = (annex: string) => `token-of-${annex}`;

export async function openAnnex(
  server: TestPostgres,
  origin: string,
  host: string,
  buckets: { readonly lo: number; readonly hi: number },
): Promise<TestAnnex> {
  const annex = must(parseCellId(`sb-${origin}-${host}`), "cell id");
  const bench = await openBench(server, annex);
  bench.control.settings.ttlMs = ttlMs;
  const told = { origin: must(parseCellId(origin), "cell id"), token: tokenOf(annex) };
  bench.control.settings.annex = told;
  const agent = await bench.start();
  const last = () => bench.control.calls.findLast((call) => call.annex !== undefined)?.annex;
  await until(`${annex} knows what it is`, () => last() !== undefined);
  return {
    ...{ bench, agent },
    partner: {
      ...{ annex, host: must(parseCellId(host), "cell id"), endpoint: agent.endpoint },
      ...{ ...buckets, token: told.token },
    },
    remainingMs: () => last()?.promiseRemainingMs ?? 0,
    order: async (takeover) => {
      bench.control.settings.annex = { ...told, takeover };
      await until(`${annex} has recorded it`, () => {
        const { failover, attempt, open } = last()?.takeover ?? {};
        return (
          failover === takeover.failover && attempt === takeover.attempt && open === takeover.open
        );
      });
    },
  };
}

/** It serves the tenant acme, and has stored its list. */
export async function openOrigin(
  server: TestPostgres,
  cell: string,
  partners: readonly Partner[],
  promiseMs = 1_200_000,
): Promise<{ readonly bench: AgentBench; readonly agent: Agent }> {
  const bench = await openBench(server, cell);
  bench.control.settings.ttlMs = ttlMs;
  bench.control.settings.partners = { revision: 1, partners: [...partners], promiseMs };
  const agent = await bench.serving();
  await until("the list is acknowledged", () =>
    bench.control.calls.some(({ origin }) => origin?.listRevision === 1),
  );
  return { bench, agent };
}

/** In front of an annex's agent: each question goes on at once, its answer comes after `delayMs()`. */
export async function openSlowDoor(to: string, delayMs: () => number) {
  const door = createServer(async (req, res) => {
    const { statusCode, body } = await request(new URL(req.url ?? "/", to), {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: req.headers.authorization ?? "",
      },
      body: await text(req),
    });
    const answer = await body.text();
    setTimeout(() => res.writeHead(statusCode).end(answer), delayMs());
  });
  const endpoint = await listenUrl(door);
  return {
    endpoint,
    close: () =>
      new Promise((closed) => {
        door.closeAllConnections();
        door.close(closed);
      }),
  };
}
