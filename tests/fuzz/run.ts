/**
 * The run: a real router in this process, two recording cells behind it, and many connections that each say
 * what a plan of the grammar says. Same seed, same bytes; what the sockets make of them may differ.
 */
import fc from "fast-check";
import { openConnection } from "./connection.ts";
import { readStream } from "./expected.ts";
import { plan as http1Plan, type Plan, render, soundRequest } from "./grammar.ts";
import { speakHttp2 } from "./http2.ts";
import { type Http2Plan, http2Plan } from "./http2-grammar.ts";
import { judge, readAnswers } from "./judge.ts";
import { judgeMemory, type Memory, memoryNow } from "./memory.ts";
import { startWorld, type World } from "./world.ts";

export type FuzzOptions = {
  readonly protocol: "http1" | "http2";
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
  /** After each round. */
  readonly memory: readonly Memory[];
  readonly socketsLeft: number;
  readonly findings: readonly string[];
};

const plansPerDraw = 200;
const findingsMax = 20;
const rounds = 8;

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const findings: string[] = [];
  const find = (what: string) => void (findings.length < findingsMax && findings.push(what));
  const onCrash = (error: unknown) =>
    find(`uncaught: ${error instanceof Error ? error.stack : String(error)}`);
  const world = await startWorld(find);
  process.on("uncaughtException", onCrash);
  process.on("unhandledRejection", onCrash);
  const tally: Tally = { sent: 0, connections: 0, answered: 0 };
  const memory: Memory[] = [];
  const startedMs = performance.now();
  try {
    const next = speakers[options.protocol](world, options.seed, find);
    for (let round = 1; round <= rounds && findings.length === 0; round += 1) {
      const goal = (options.requests * round) / rounds;
      const work = async () => {
        while (tally.sent < goal && findings.length === 0) await next(tally);
      };
      await Promise.all(Array.from({ length: options.connections ?? 48 }, work));
      memory.push(await memoryNow());
      options.onProgress?.(tally.sent);
    }
    judgeMemory(memory, find);
    const seconds = (performance.now() - startedMs) / 1000;
    await world.close();
    const carried = world.ledger.seen();
    return { ...tally, carried, seconds, memory, socketsLeft: world.open(), findings };
  } finally {
    await world.close();
    process.off("uncaughtException", onCrash);
    process.off("unhandledRejection", onCrash);
  }
}

type Tally = { sent: number; connections: number; answered: number };
/** Makes one connection and says what a plan says. */
type Speaker = (
  world: World,
  seed: number,
  find: (what: string) => void,
) => (tally: Tally) => Promise<void>;

const speaker =
  <P extends Plan | Http2Plan>(
    plan: fc.Arbitrary<P>,
    requestsOf: (one: P) => number,
    say: (world: World, one: P, name: string, find: (what: string) => void) => Promise<number>,
  ): Speaker =>
  (world, seed, find) => {
    const plans = draw(plan, seed);
    return async (tally) => {
      const one = plans();
      tally.sent += requestsOf(one);
      tally.connections += 1;
      // Others count meanwhile.
      const answered = await say(world, one, `${seed}-${tally.connections}`, find);
      tally.answered += answered;
    };
  };

const speakers: Readonly<Record<FuzzOptions["protocol"], Speaker>> = {
  http1: speaker(http1Plan, ({ requests }) => requests.length, speak),
  http2: speaker(http2Plan, ({ streams }) => streams.length, speakHttp2),
};

function draw<P>(plan: fc.Arbitrary<P>, seed: number): () => P {
  let drawn: P[] = [];
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

/** One connection from its first byte to its last; returns how many answers of cells came. */
async function speak(
  { port, ledger }: World,
  one: Plan,
  name: string,
  find: (what: string) => void,
): Promise<number> {
  const marks = one.requests.map((_, at) => `m${name}-${at}z`);
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
    const probe = soundRequest(`m${name}-probe`);
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
