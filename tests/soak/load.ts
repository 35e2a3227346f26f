/** One stretch of full load: good clients, rude ones of every kind, tunnels, and cells that go away and come back. */
import { setTimeout as pause } from "node:timers/promises";
import type { SoakCell } from "./cells.ts";
import { http1Client, http2Client, tunnelClient } from "./good-clients.ts";
import { rudeClient, rudeHttp2Client, rudeKinds } from "./rude-clients.ts";
import type { Soaking } from "./soaking.ts";

const goodClients = 32;
const goodSessions = 8;
const rudeEach = 4;
const tunnelsAtOnce = 8;
const restartEveryMs = 15_000;

const many = <T>(count: number, start: (at: number) => T): T[] =>
  Array.from({ length: count }, (_, at) => start(at));

/** Resolves when all clients have ended, which they do soon after `over`. */
export async function load(soaking: Soaking): Promise<void> {
  const { secured } = soaking;
  await Promise.all([
    restarts(soaking),
    ...many(goodClients, (at) => http1Client(soaking, at + 1)),
    ...many(tunnelsAtOnce, (at) => tunnelClient(soaking, at + 1)),
    ...rudeKinds.flatMap((kind, at) =>
      many(rudeEach, (one) => rudeClient(soaking, kind, at * 10 + one)),
    ),
    ...(secured === undefined ? [] : many(goodSessions, (at) => http2Client(soaking, 100 + at))),
    ...(secured === undefined ? [] : many(rudeEach, (at) => rudeHttp2Client(soaking, at))),
  ]);
}

/** The last cell stays, so that it shows what others cost it. */
async function restarts({ cells, over }: Soaking): Promise<void> {
  const leaving: readonly SoakCell[] = cells.slice(0, -1);
  for (let at = 0; !over.aborted; at += 1) {
    await pause(restartEveryMs, undefined, { signal: over }).catch(() => {});
    if (!over.aborted) await leaving[at % leaving.length]?.restart(500 + (at % 3) * 700);
  }
}
