/**
 * The run: a real router in this process, two recording cells behind it, and many connections that each say
 * what a plan of the grammar says. Same seed, same bytes; what the sockets make of them may differ.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { parseRouterConfig } from "../../router/config.ts";
import type { RouterEvents } from "../../router/observe/events.ts";
import { startRouter } from "../../router/run.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { openConnection } from "./connection.ts";
import { readStream } from "./expected.ts";
import { type Plan, plan, render, soundRequest } from "./grammar.ts";
import { createLedger, judge, readAnswers } from "./judge.ts";
import { startRecorder } from "./recorder.ts";

export type FuzzOptions = {
  readonly requests: number;
  readonly seed: number;
  readonly connections?: number;
  readonly onProgress?: (sent: number) => void;
};
export type FuzzReport = {
  readonly sent: number;
  readonly connections: number;
  /** Seen by a cell; answered by one. */
  readonly carried: number;
  readonly answered: number;
  readonly seconds: number;
  readonly heapMiB: readonly number[];
  readonly socketsLeft: number;
  readonly findings: readonly string[];
};

const plansPerDraw = 200;
const findingsMax = 20;

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const findings: string[] = [];
  const find = (what: string) => void (findings.length < findingsMax && findings.push(what));
  const onCrash = (error: unknown) =>
    find(`uncaught: ${error instanceof Error ? error.stack : String(error)}`);
  const world = await startWorld(find);
  process.on("uncaughtException", onCrash);
  process.on("unhandledRejection", onCrash);
  const tally = { sent: 0, connections: 0, answered: 0 };
  const heapMiB: number[] = [];
  const startedMs = performance.now();
  try {
    const plans = draw(options.seed);
    let nextHeap = 0.25;
    const work = async () => {
      while (tally.sent < options.requests && findings.length === 0) {
        const one = plans();
        tally.sent += one.requests.length;
        tally.connections += 1;
        const answered = await speak(world, one, tally.connections, options.seed, find);
        tally.answered += answered;
        if (tally.sent < nextHeap * options.requests) continue;
        nextHeap += 0.25;
        heapMiB.push(heapNow());
        options.onProgress?.(tally.sent);
      }
    };
    await Promise.all(Array.from({ length: options.connections ?? 24 }, work));
    const seconds = (performance.now() - startedMs) / 1000;
    await world.close();
    return {
      ...tally,
      carried: world.ledger.seen(),
      seconds,
      heapMiB,
      socketsLeft: world.recorders.reduce((sum, { open }) => sum + open(), 0),
      findings,
    };
  } finally {
    await world.close();
    process.off("uncaughtException", onCrash);
    process.off("unhandledRejection", onCrash);
  }
}

function draw(seed: number): () => Plan {
  let drawn: Plan[] = [];
  let draws = 0;
  return () => {
    let one = drawn.pop();
    if (one === undefined) {
      drawn = fc.sample(plan, { seed: (seed * 1_000_003 + draws) | 0, numRuns: plansPerDraw });
      draws += 1;
      one = drawn.pop();
    }
    if (one === undefined) throw new Error("nothing was drawn");
    return one;
  };
}

type World = Awaited<ReturnType<typeof startWorld>>;

async function startWorld(find: (what: string) => void) {
  const dir = await mkdtemp(join(tmpdir(), "cellfleet-fuzz-"));
  const ledger = createLedger(find);
  const recorders = await Promise.all(
    (["a", "b"] as const).map((cell) =>
      startRecorder(
        (key) => ledger.note(cell, key),
        (what) => find(`cell ${cell} was sent ${what}`),
      ),
    ),
  );
  const [a, b] = recorders.map(({ url }) => ({ endpoints: [url] }));
  const table = {
    cells: { a, b },
    tenants: { acme: "a", globex: "b" },
    tenantKey: [{ header: "x-tenant-id" }, { host: "{tenant}.cells.test" }],
  };
  await writeFile(join(dir, "table.json"), JSON.stringify(table));
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: "warn",
    write: (line) => {
      if (line.includes("router.trouble")) find(`the router says: ${line}`);
    },
  });
  const any = "127.0.0.1:0";
  const config = parseRouterConfig({
    ...{ listen: any, admin: any, table: join(dir, "table.json"), accessLog: "off" },
    // Node says nothing of bytes that break the body of a request with an upgrade: the guard of bodies does.
    bodyIdleMs: 1000,
    ...{ drainDelayMs: 0, drainAnnounceMs: 0, drainMs: 5000 },
  });
  const router = await startRouter({ config, log, token: "" });
  let closing: Promise<void> | undefined;
  const close = async () => {
    await router.close();
    await Promise.all(recorders.map((recorder) => recorder.close()));
    await rm(dir, { recursive: true, force: true });
  };
  return {
    port: router.port,
    ledger,
    recorders,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** One connection from its first byte to its last; returns how many answers of cells came. */
async function speak(
  { port, ledger }: World,
  one: Plan,
  nth: number,
  seed: number,
  find: (what: string) => void,
): Promise<number> {
  const marks = one.requests.map((_, at) => `m${seed}-${nth}-${at}z`);
  const bytes = render(one, marks);
  const wanted = readStream(bytes);
  const entries = [...ledger.add(wanted)];
  const connection = openConnection(port);
  const enough = (count: number) => (text: string) =>
    readAnswers(text, asked).answers.length >= count;
  let asked = wanted.asked;
  const cuts = one.writes.map((share) => Math.floor(share * bytes.length)).sort((x, y) => x - y);
  for (const [at, from] of [0, ...cuts].entries()) {
    connection.send(bytes.slice(from, cuts[at]));
  }
  let sent = bytes;
  // A client that ends its side has gone, for node:http: only who waits gets an answer.
  if (!(await connection.until(enough(asked.length)))) find(`hangs: ${JSON.stringify(bytes)}`);
  if (wanted.whole && asked.at(-1)?.last !== true && !connection.isOver()) {
    // Whatever was refused before: the connection is closed, or it serves.
    const probe = soundRequest(`m${seed}-${nth}-probe`);
    const more = readStream(probe);
    entries.push(...ledger.add(more));
    asked = [...asked, ...more.asked];
    connection.send(probe);
    sent += probe;
    if (!(await connection.until(enough(asked.length))))
      find(`hangs after: ${JSON.stringify(sent)}`);
  }
  connection.finish();
  if (!(await connection.until(() => false))) find(`is never closed: ${JSON.stringify(sent)}`);
  connection.drop();
  const answered = judge(sent, connection.text(), { asked, whole: wanted.whole }, entries, find);
  ledger.retire(entries);
  return answered;
}

/** After a collection, so that figures can be compared. */
function heapNow(): number {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect === "function") collect();
  return Math.round(process.memoryUsage().heapUsed / 1024 / 102.4) / 10;
}
